#!/usr/bin/env bash
# Sets up the locked environment: scripts/setup.sh [FOLDER] (default: .venv).
#
# Variables: PYTHON      the Python 3.10 to use, instead of searching for one
#            ACCELERATOR cpu (default), cuda or tpu
#            UV          the uv to use; empty: plain venv and pip
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV="${1:-.venv}"
readonly ACCELERATOR="${ACCELERATOR:-cpu}"
readonly NEEDED_KB=$((4 * 1024 * 1024))
readonly PYENV_VERSIONS="${PYENV_ROOT:-$HOME/.pyenv}/versions"

# What a user's shell may carry for other projects must not reach this one.
unset PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE PYTHONOPTIMIZE \
  PYTHONPYCACHEPREFIX VIRTUAL_ENV CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_ROOT \
  PIP_USER PIP_REQUIRE_VIRTUALENV PIP_PYTHON PIP_NO_COMPILE PIP_NO_BINARY \
  UV_PYTHON UV_TARGET UV_PREFIX UV_PROJECT_ENVIRONMENT UV_NO_BINARY \
  UV_SYSTEM_PYTHON UV_BREAK_SYSTEM_PACKAGES
# Company networks sign their own traffic; the system knows their certificates.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" PIP_DISABLE_PIP_VERSION_CHECK=1

say() { echo "setup: $*" >&2; }

die() {
  say "$1"
  shift
  if (($#)); then printf '  %s\n' "$@" >&2; fi
  exit 1
}

check_platform() {
  [[ "$(uname -s)-$(uname -m)" == Linux-x86_64 ]] || die \
    "this is $(uname -s) on $(uname -m); Launchpad and Reverb are published" \
    'for Linux on x86-64 only. Use such a machine, or the Docker image there.'
  [[ "$ACCELERATOR" =~ ^(cpu|cuda|tpu)$ ]] || die \
    "ACCELERATOR=$ACCELERATOR is not known; allowed: cpu, cuda, tpu"
}

check_disk() {
  local free_kb
  free_kb="$(df -Pk . | awk 'NR == 2 { print $4 }')"
  ((free_kb >= NEEDED_KB)) || die \
    "only $((free_kb / 1024)) MB free here; the dependencies need" \
    "$((NEEDED_KB / 1024)) MB. Free some space, or clone to another disk."
}

# Prints the first uv that runs. One installed under another pyenv version has a
# shim that fails here, because .python-version chooses 3.10.
find_uv() {
  local candidate
  for candidate in "${UV-uv}" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" \
    "$PYENV_VERSIONS"/*/bin/uv; do
    [[ -n "$candidate" ]] || return 0
    if "$candidate" --version > /dev/null 2>&1; then
      echo "$candidate"
      return 0
    fi
  done
}

list_pythons() {
  if [[ -n "${PYTHON:-}" ]]; then
    echo "$PYTHON"
    return 0
  fi
  local versions=("$PYENV_VERSIONS"/3.10*/bin/python3.10)
  [[ ! -x "${versions[0]}" ]] || printf '%s\n' "${versions[@]}" | sort -rV
  type -ap python3.10 || true
  [[ -z "$uv" ]] || UV_PYTHON_PREFERENCE=only-managed \
    "$uv" python find 3.10 2> /dev/null || true
}

# Sets `python` and `libpython` to the first Python that will do, or adds to
# `rejected` why none does.
choose_python() {
  local candidate
  local needs=()
  [[ -n "$uv" ]] || needs=(--needs-venv)
  while read -r candidate; do
    if libpython="$("$candidate" -I scripts/probe_python.py \
      ${needs[@]+"${needs[@]}"} 2> "$log")"; then
      python="$candidate"
      return 0
    fi
    rejected+=("$candidate: $(tail -n 1 "$log")")
  done < <(list_pythons)
  return 1
}

die_without_python() {
  local compiler='a C compiler is here'
  command -v cc > /dev/null || command -v gcc > /dev/null || compiler='this
             needs a C compiler, and none is here: apt install build-essential
             libssl-dev zlib1g-dev libffi-dev libbz2-dev liblzma-dev'
  ((${#rejected[@]})) || rejected=('no python3.10 on PATH, none under pyenv')
  die 'no Python 3.10 with a shared libpython was found.' \
    "${rejected[@]}" \
    'Get one in any of these ways and run the same command again:' \
    '  uv         curl -LsSf https://astral.sh/uv/install.sh | sh' \
    '             (it then fetches a Python 3.10 by itself)' \
    '  pyenv      PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.10' \
    "             ($compiler)" \
    '  Ubuntu     apt install python3.10 python3.10-venv libpython3.10' \
    '  Fedora     dnf install python3.10' \
    '  elsewhere  name it: PYTHON=/path/to/python3.10 make ...'
}

find_python() {
  ! choose_python || return 0
  if [[ -n "$uv" && -z "${PYTHON:-}" ]]; then
    say 'no Python 3.10 here; asking uv for one'
    if "$uv" python install 3.10 >&2; then
      rejected=()
      ! choose_python || return 0
    fi
  fi
  die_without_python
}

# Without a stamp a folder is what an interrupted set-up left behind, and goes.
make_venv() {
  if ! compgen -G "$VENV/.complete-*" > /dev/null || ! can_install; then
    [[ ! -e "$VENV" || -e "$VENV/pyvenv.cfg" ]] || rmdir "$VENV" 2> /dev/null \
      || die "$VENV exists and is no virtual environment; move it away."
    rm -rf "$VENV"
  fi
  rm -f "$VENV"/.complete-*
  if [[ -e "$VENV" ]]; then
    return 0
  elif [[ -n "$uv" ]]; then
    "$uv" venv --quiet --no-project --python "$python" "$VENV"
  else
    "$python" -I -m venv "$VENV"
  fi
}

can_install() {
  [[ -x "$VENV/bin/python" ]] || return 1
  [[ -n "$uv" ]] || "$VENV/bin/python" -I -m pip --version &> /dev/null
}

# Installs with uv where there is one. Only wheels: nothing is ever compiled.
install() {
  if [[ -n "$uv" ]]; then
    "$uv" pip install --python "$VENV/bin/python" "$@"
  else
    "$VENV/bin/python" -m pip install --quiet --retries 2 "$@"
  fi
}

install_packages() {
  local locks=(-r requirements.lock)
  [[ "$ACCELERATOR" == cpu ]] || locks+=(-r "requirements-$ACCELERATOR.lock")
  # The lock files are complete; pip 23 stumbles over extras when it resolves.
  install --no-deps --require-hashes --only-binary :all: "${locks[@]}" 2>&1 \
    | tee "$log" >&2 || return 1
  install --no-deps --no-build-isolation \
    --config-settings editable_mode=compat --editable . 2>&1 | tee "$log" >&2
}

die_without_packages() {
  local unreachable='connection|dns error|name resolution|timed out'
  unreachable+='|certificate verify|UnknownIssuer|ProxyError|failed to fetch'
  if grep -qiE "$unreachable" "$log"; then
    die 'the package index cannot be reached.' \
      'Check the network. Behind a proxy set HTTPS_PROXY; for a mirror set' \
      'PIP_INDEX_URL (pip) or UV_DEFAULT_INDEX (uv).'
  elif grep -qiE 'no space left|disk quota' "$log"; then
    die 'the disk is full (the environment, or the cache of pip or uv).'
  fi
  die 'the packages could not be installed; the reason stands above.'
}

finish_venv() {
  local site
  site="$("$VENV/bin/python" -I -c \
    'import sysconfig; print(sysconfig.get_path("purelib"))')"
  # Launchpad looks for libpython by name; one loaded by path answers to it.
  [[ -z "$libpython" ]] || echo "import ctypes; ctypes.CDLL('$libpython')" \
    > "$site/libpython.pth"
  # Importing Reverb's TensorFlow takes 12 s without bytecode, 3.5 s with it.
  # Some packages ship a file that does not compile; nobody imports those.
  say 'compiling to bytecode'
  "$VENV/bin/python" -I -m compileall -qq -j 0 "$site" || true
  "$VENV/bin/python" -I -c 'import courier' || die \
    'Launchpad cannot be imported; the reason stands above.'
  # The other accelerators' packages come on top of the CPU's.
  touch "$VENV/.complete-cpu" "$VENV/.complete-$ACCELERATOR"
}

set_up() {
  find_python
  say "$VENV from $python, with ${uv:-pip}"
  make_venv && install_packages
}

main() {
  check_platform
  # Two commands started at once must not set up the same folder.
  exec 9< "${BASH_SOURCE[0]}"
  ! command -v flock > /dev/null || flock 9
  check_disk
  uv="$(find_uv)"
  if [[ -n "$uv" ]] && ! set_up; then
    say 'uv did not succeed; trying plain venv and pip'
    uv=''
    rm -rf "$VENV"
  fi
  [[ -n "$uv" ]] || set_up || die_without_packages
  finish_venv
  say 'ready'
}

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
python='' libpython='' uv=''
rejected=()
main
