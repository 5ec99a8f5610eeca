"""Lints the Dockerfile and runs its steps in a clean folder, without Docker.

  python scripts/check_dockerfile.py

Each stage gets a folder that stands for its root: absolute paths that the
Dockerfile makes are moved there, `python` is the Python that runs this script.
Steps that need to be root (useradd) are left out. In the end the doctor has to
find the result healthy. Takes minutes and 2 GB in the temporary folder.
"""

import fnmatch
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

_REPOSITORY = pathlib.Path(__file__).parents[1]
_DOCKERFILE = _REPOSITORY / 'Dockerfile'
_IMAGE_PATHS = re.compile(r'(?<![\w./])/(opt/venv|bmg|runs)\b')
_STEP_DEADLINE_S = 1800


def read_instructions(text: str) -> list[tuple[str, str]]:
  """Returns the (keyword, arguments) of a Dockerfile's text, in order."""
  lines = [line for line in text.splitlines() if not line.startswith('#')]
  joined = re.sub(r'\\\n\s*', '', '\n'.join(lines))
  pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line]
  return [(keyword, arguments) for keyword, arguments in pairs]


def context_files() -> list[pathlib.Path]:
  """Returns the repository's entries that .dockerignore lets through."""
  lines = (_REPOSITORY / '.dockerignore').read_text().splitlines()
  kept = [line[1:] for line in lines if line.startswith('!')]
  return [
    path
    for path in sorted(_REPOSITORY.iterdir())
    if any(fnmatch.fnmatch(path.name, pattern) for pattern in kept)
  ]


class Image:
  """Carries out a Dockerfile's instructions inside `root`."""

  def __init__(self, root: pathlib.Path):
    self._root = root
    self._stage = root
    self._directory = root
    self._arguments: dict[str, str] = {}
    self._environment: dict[str, str] = {}

  def carry_out(self, keyword: str, arguments: str) -> None:
    """Carries out one instruction; raises for one that it does not know."""
    for name, value in self._arguments.items():
      arguments = arguments.replace('${' + name + '}', value)
    getattr(self, f'_do_{keyword.lower()}')(arguments)

  def run(self, *command: str) -> None:
    """Runs `command` in the current stage, folder and environment."""
    print('+', shlex.join(command), flush=True)
    subprocess.run(
      command,
      cwd=self._directory,
      env=self._environment,
      check=True,
      timeout=_STEP_DEADLINE_S,
    )

  def _inside(self, text: str) -> str:
    return _IMAGE_PATHS.sub(rf'{self._stage}/\1', text)

  def _do_from(self, arguments: str) -> None:
    self._stage = self._root / arguments.partition(' AS ')[2]
    self._stage.mkdir(exist_ok=True)
    self._directory = self._stage
    python = pathlib.Path(sys.base_prefix, 'bin')
    keep = ('PIP_CERT', 'PIP_INDEX_URL', 'HTTPS_PROXY', 'SSL_CERT_FILE')
    self._environment = {k: os.environ[k] for k in keep if k in os.environ}
    self._environment['HOME'] = str(pathlib.Path.home())
    self._environment['PATH'] = f'{python}:/usr/bin:/bin'

  def _do_arg(self, arguments: str) -> None:
    name, _, default = arguments.partition('=')
    self._arguments[name] = os.environ.get(name, default)

  def _do_env(self, arguments: str) -> None:
    for item in shlex.split(arguments):
      name, _, value = item.partition('=')
      value = value.replace('$PATH', self._environment['PATH'])
      self._environment[name] = self._inside(value)

  def _do_workdir(self, arguments: str) -> None:
    self._directory = pathlib.Path(self._inside(arguments))
    self._directory.mkdir(parents=True, exist_ok=True)

  def _do_copy(self, arguments: str) -> None:
    *options, source, target = arguments.split()
    if options:
      stage = self._root / options[0].removeprefix('--from=')
      shutil.copytree(stage / source[1:], self._inside(target), symlinks=True)
    elif source == '.':
      for path in context_files():
        _copy(path, self._directory / path.name)
    else:
      _copy(_REPOSITORY / source, self._directory / target)

  def _do_run(self, arguments: str) -> None:
    if arguments.startswith('useradd'):
      print('- left out:', arguments)
    else:
      self.run('/bin/sh', '-c', self._inside(arguments))

  def _do_entrypoint(self, arguments: str) -> None:
    self.run('python', '-m', 'bmg', 'doctor')
    self.run('python', '-c', 'import bmg.launch.commands.train')

  def _do_user(self, arguments: str) -> None:
    """Nothing to do, as for the next two."""

  _do_volume = _do_user
  _do_cmd = _do_user


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  if source.is_dir():
    ignored = shutil.ignore_patterns('__pycache__')
    shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
  else:
    shutil.copy(source, target)


def main() -> None:
  """Lints and carries out the Dockerfile; any fault raises."""
  if shutil.which('hadolint'):
    subprocess.run(['hadolint', _DOCKERFILE], check=True)
  else:
    print('hadolint is not installed, so the Dockerfile is not linted')
  with tempfile.TemporaryDirectory() as folder:
    image = Image(pathlib.Path(folder))
    for keyword, arguments in read_instructions(_DOCKERFILE.read_text()):
      image.carry_out(keyword, arguments)
  print('the Dockerfile is fine')


if __name__ == '__main__':
  main()
