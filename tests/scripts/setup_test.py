"""The set-up script on machines that lack something."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from scripts import probe_python

_REPOSITORY = pathlib.Path(__file__).parents[2]
_TOOLS = [
  'awk',
  'bash',
  'cat',
  'df',
  'dirname',
  'env',
  'flock',
  'grep',
  'mktemp',
  'rm',
  'rmdir',
  'sort',
  'tail',
  'tee',
  'touch',
  'uname',
]


class Machine:
  """A copy of the set-up files and a PATH on which almost nothing is."""

  def __init__(self, root: pathlib.Path):
    self.checkout = root / 'checkout'
    self.bin = root / 'bin'
    self.bin.mkdir()
    for tool in _TOOLS:
      (self.bin / tool).symlink_to(shutil.which(tool))
    shutil.copytree(_REPOSITORY / 'scripts', self.checkout / 'scripts')
    (self.checkout / 'requirements.lock').write_text(
      f'absl-py==2.5.1 --hash=sha256:{"0" * 64}\n'
    )
    self.environment = {
      'PATH': str(self.bin),
      'HOME': str(root),
      'PIP_CONFIG_FILE': '/dev/null',
      'PIP_INDEX_URL': 'http://127.0.0.1:9/simple',  # Nobody listens there.
    }

  def add_tool(self, name: str, script: str) -> None:
    """Puts a shell script on the PATH."""
    path = self.bin / name
    path.unlink(missing_ok=True)
    path.write_text(f'#!{shutil.which("bash")}\n{script}\n')
    path.chmod(0o755)

  def set_up(self, **variables: str) -> str:
    """Runs the script, which has to fail; returns what it said."""
    done = subprocess.run(
      [self.checkout / 'scripts/setup.sh'],
      env=self.environment | variables,
      capture_output=True,
      text=True,
      timeout=120,
      check=False,
    )
    assert done.returncode == 1, done
    assert not list((self.checkout / '.venv').glob('.complete-*'))
    return done.stderr


@pytest.fixture
def machine(tmp_path):
  return Machine(tmp_path)


def test_without_python_every_way_to_get_one_is_named(machine):
  message = machine.set_up()
  assert 'no Python 3.10 with a shared libpython was found' in message
  assert 'no python3.10 on PATH' in message
  for way in ('astral.sh/uv', '--enable-shared', 'apt install', 'PYTHON='):
    assert way in message


def test_pyenv_is_said_to_need_a_compiler_only_where_there_is_none(machine):
  assert 'none is here: apt install build-essential' in machine.set_up()
  machine.add_tool('cc', 'exit 0')
  assert 'a C compiler is here' in machine.set_up()


def test_a_shim_without_its_version_is_named(machine):
  machine.add_tool(
    'python3.10', 'echo "pyenv: command not found" >&2; exit 127'
  )
  assert 'python3.10: pyenv: command not found' in machine.set_up()


def test_python_under_pyenv_is_found_without_shims(machine):
  root = pathlib.Path(machine.environment['HOME'], 'somewhere')
  folder = root / 'versions/3.10.99/bin'
  folder.mkdir(parents=True)
  (folder / 'python3.10').symlink_to(shutil.which('false'))
  assert f'{folder}/python3.10: ' in machine.set_up(PYENV_ROOT=str(root))


def test_a_wrong_python_is_named(machine):
  machine.add_tool('wrong', 'echo "is Python 3.12.1, not 3.10" >&2; exit 1')
  message = machine.set_up(PYTHON=f'{machine.bin}/wrong')
  assert 'wrong: is Python 3.12.1, not 3.10' in message


def test_little_disk_space_is_named(machine):
  machine.add_tool('df', 'echo header; echo "/dev/x 100 90 10240 90% /"')
  assert 'only 10 MB free' in machine.set_up()


def test_another_platform_is_named(machine):
  machine.add_tool('uname', '[[ $1 == -s ]] && echo Darwin || echo arm64')
  assert 'this is Darwin on arm64' in machine.set_up()


def test_an_unknown_accelerator_is_named(machine):
  assert 'allowed: cpu, cuda, tpu' in machine.set_up(ACCELERATOR='gpu')


def test_a_folder_that_is_no_environment_is_left_alone(machine):
  thesis = machine.checkout / '.venv/thesis.txt'
  thesis.parent.mkdir()
  thesis.write_text('years of work')
  message = machine.set_up(PYTHON=sys.executable, UV='')
  assert '.venv exists and is no virtual environment' in message
  assert thesis.read_text() == 'years of work'


@pytest.mark.system
def test_an_interrupted_set_up_is_begun_anew_and_a_dead_index_named(machine):
  venv = machine.checkout / '.venv'
  (venv / 'lib').mkdir(parents=True)
  (venv / 'pyvenv.cfg').touch()
  half_written = venv / 'lib/half_written'
  half_written.touch()
  message = machine.set_up(PYTHON=sys.executable, UV='')
  assert 'the package index cannot be reached' in message
  assert not half_written.exists()
  assert (venv / 'bin/python').exists()


@pytest.mark.system
def test_other_projects_settings_do_no_harm(machine, tmp_path):
  (tmp_path / 'venv.py').write_text('raise RuntimeError("not this one")')
  message = machine.set_up(
    PYTHON=sys.executable,
    UV='',
    PYTHONPATH=str(tmp_path),
    PYTHONHOME='/nowhere',
    PIP_USER='1',
    VIRTUAL_ENV='/nowhere',
  )
  assert 'the package index cannot be reached' in message


@pytest.mark.system
def test_a_uv_that_fails_is_replaced_by_pip(machine):
  machine.add_tool('uv', '[[ $1 == --version ]] || exit 2')
  message = machine.set_up(PYTHON=sys.executable)
  assert 'uv did not succeed; trying plain venv and pip' in message
  assert 'python, with pip' in message


def test_probe_names_a_missing_library(monkeypatch):
  monkeypatch.setattr(probe_python, '_LIBRARY', 'libpython_missing.so')
  with pytest.raises(SystemExit, match='has no shared libpython'):
    probe_python.main()


def test_probe_names_a_missing_module(monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['probe', '--needs-venv'])
  monkeypatch.setitem(sys.modules, 'ensurepip', None)
  with pytest.raises(SystemExit, match='has no module ensurepip'):
    probe_python.main()


def test_make_sets_up_again_when_the_lock_file_is_newer_or_the_stamp_missing(
  tmp_path,
):
  for name in ('Makefile', 'setup.py', 'requirements.lock'):
    shutil.copy(_REPOSITORY / name, tmp_path)
  shutil.copytree(_REPOSITORY / 'scripts', tmp_path / 'scripts')
  (tmp_path / '.venv').mkdir()

  def is_ready() -> bool:
    command = ['make', '--question', '-C', str(tmp_path), 'setup']
    environment = {'PATH': os.environ['PATH']}
    return subprocess.run(command, env=environment).returncode == 0

  assert not is_ready()
  (tmp_path / '.venv/.complete-cpu').touch()
  assert is_ready()
  os.utime(tmp_path / 'requirements.lock', (2**32, 2**32))
  assert not is_ready()
