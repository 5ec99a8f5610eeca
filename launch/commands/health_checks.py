"""The checks of `bmg doctor`; each runs in a process of its own.

A check returns a short description of what it found, or raises. The imports are
local, so that a broken package fails its own check and no other.
"""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shutil
import socket
import sys
import sysconfig
from collections.abc import Callable
from typing import NamedTuple

import bmg

_LOCK_FILE = pathlib.Path(bmg.ROOT, 'requirements.lock')
_LIBPYTHON = 'libpython3.10.so.1.0'
# Packages whose import takes seconds without bytecode.
_HEAVY_PACKAGES = ('courier', 'haiku', 'jax', 'keras', 'reverb', 'tensorflow')
_NUM_PORTS = 32
_MIN_DISK_GB = 2
_MIN_MEMORY_GB = 4
_CALL_TIMEOUT_S = 10
_NEW_ENVIRONMENT = 'set the environment up anew: rm -r .venv && make setup'


class Check(NamedTuple):
  """One check, what to do when it fails and how long it may take."""

  run: Callable[[], str]
  cure: str
  deadline_s: float = 30.0


def _check_python() -> str:
  import ctypes

  version = '.'.join(str(part) for part in sys.version_info[:3])
  if sys.version_info[:2] != (3, 10):
    raise RuntimeError(f'this is Python {version}, not 3.10')
  ctypes.CDLL(_LIBPYTHON)
  return f'{version}, {_LIBPYTHON} loads'


def read_pins(text: str) -> dict[str, str]:
  """Returns the pinned version of each package in a lock file's text."""
  return dict(re.findall(r'^([\w.-]+)==([^\s;\\]+)', text, re.MULTILINE))


def _check_pins() -> str:
  pins = read_pins(_LOCK_FILE.read_text())
  installed = {
    re.sub(r'[-_.]+', '-', package.metadata['Name']).lower(): package.version
    for package in importlib.metadata.distributions()
  }
  wrong = [
    f'{name} is {installed.get(name, "missing")}, not {version}'
    for name, version in pins.items()
    if installed.get(name) != version
  ]
  if wrong:
    more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
    raise RuntimeError('; '.join(wrong[:3]) + more)
  return f'{len(pins)} packages as in {_LOCK_FILE.name}'


def _check_imports() -> str:
  import launchpad  # noqa: F401, I001 (the order is what is checked)
  import bmg.replay.selfcheck  # noqa: F401 (imports Reverb and its TensorFlow)
  import jax
  import haiku  # noqa: F401
  import optax  # noqa: F401

  # RLax cannot be imported beside Reverb's TensorFlow; nothing may pull it in.
  if 'tensorflow_probability' in sys.modules:
    raise RuntimeError('TensorFlow Probability was imported')
  return f'launchpad, reverb, jax {jax.__version__}, haiku and optax together'


def _check_bytecode() -> str:
  site = pathlib.Path(sysconfig.get_path('purelib'))
  sources = [
    path for name in _HEAVY_PACKAGES for path in (site / name).rglob('*.py')
  ]
  missing = sum(
    not os.path.exists(importlib.util.cache_from_source(str(path)))
    for path in sources
  )
  # A few files are templates that do not compile.
  if not sources or missing > 0.01 * len(sources):
    raise RuntimeError(f'{missing} of {len(sources)} modules are not compiled')
  return f'{len(sources)} modules of the slow packages are compiled'


def _check_roms() -> str:
  import numpy as np
  from ale_py import roms, vector_env

  games = roms.get_all_rom_ids()
  if roms.get_rom_path('pong') is None:
    raise RuntimeError('the ROM of Pong is missing')
  environment = vector_env.AtariVectorEnv('pong', num_envs=1, num_threads=1)
  environment.reset(seed=0)
  observations, *_ = environment.step(np.zeros(1, dtype=np.int64))
  environment.close()
  return f'{len(games)} games; a step of Pong gives {observations.shape}'


class _Echo:
  """A server of one method."""

  def echo(self, value: int) -> int:
    return value


class _Asker:
  """Asks the server once, then stops the program."""

  def __init__(self, server: _Echo):
    self._server = server

  def run(self) -> None:
    import launchpad as lp

    answer = self._server.echo(42)
    lp.stop()
    if answer != 42:
      raise RuntimeError(f'sent 42, but received {answer}')


def _check_launchpad() -> str:
  import launchpad as lp
  from absl import flags

  flags.FLAGS(sys.argv[:1])  # Launchpad reads flags that only absl.app parses.
  program = lp.Program('doctor')
  with program.group('server'):
    handle = program.add_node(lp.CourierNode(_Echo))
  handle.set_client_kwargs(call_timeout=_CALL_TIMEOUT_S)
  with program.group('client'):
    program.add_node(lp.PyClassNode(_Asker, handle))
  lp.launch(program, launch_type='local_mt', terminal='output_to_files').wait()
  return 'a program of two nodes ran, one called the other'


def _check_reverb() -> str:
  from bmg.replay import selfcheck

  return f'wrote a step to a server on port {selfcheck.round_trip()}, read it'


def _check_devices() -> str:
  import jax

  devices = jax.devices()
  found = f'{len(devices)} x {devices[0].device_kind} ({devices[0].platform})'
  if os.path.exists('/dev/nvidia0') and devices[0].platform == 'cpu':
    found += '; the NVIDIA GPU here is not used (make ... ACCELERATOR=cuda)'
  return found


def _check_ports() -> str:
  bound = []
  try:
    for _ in range(_NUM_PORTS):
      bound.append(socket.socket())
      bound[-1].bind(('localhost', 0))
  finally:
    for listener in bound:
      listener.close()
  return f'{_NUM_PORTS} ports of localhost can be bound'


def _check_disk() -> str:
  free_gb = shutil.disk_usage('.').free / 2**30
  if free_gb < _MIN_DISK_GB:
    raise RuntimeError(f'{free_gb:.1f} GB free here, not {_MIN_DISK_GB}')
  return f'{free_gb:.0f} GB free here'


def _check_memory() -> str:
  import psutil

  free_gb = psutil.virtual_memory().available / 2**30
  if free_gb < _MIN_MEMORY_GB:
    raise RuntimeError(f'{free_gb:.1f} GB available, not {_MIN_MEMORY_GB}')
  return f'{free_gb:.0f} GB available, {os.cpu_count()} cores'


CHECKS = {
  'Python': Check(_check_python, 'get one as docs/install.md says'),
  'pins': Check(_check_pins, _NEW_ENVIRONMENT),
  'bytecode': Check(
    _check_bytecode,
    'compile it: .venv/bin/python -m compileall -qq -j 0 .venv/lib',
  ),
  'imports': Check(_check_imports, _NEW_ENVIRONMENT, deadline_s=120),
  'ROMs': Check(_check_roms, _NEW_ENVIRONMENT),
  'Launchpad': Check(
    _check_launchpad,
    'let processes talk over localhost: look at firewall and proxy settings'
    ' (unset http_proxy, or set no_proxy=localhost)',
    deadline_s=60,
  ),
  'Reverb': Check(
    _check_reverb,
    'let processes talk over localhost: look at firewall and proxy settings'
    ' (unset http_proxy, or set no_proxy=localhost)',
    deadline_s=120,
  ),
  'devices': Check(
    _check_devices,
    'look at the driver and at JAX_PLATFORMS; JAX_PLATFORMS=cpu always works',
    deadline_s=120,
  ),
  'ports': Check(_check_ports, 'end other servers; look at ulimit -n'),
  'disk': Check(_check_disk, 'free some space, or use another --workdir'),
  'memory': Check(_check_memory, 'end other programs; use fewer actors'),
}


def main() -> None:
  """Runs the check named by the first argument; prints one line of JSON."""
  try:
    report = {'ok': True, 'found': CHECKS[sys.argv[1]].run()}
  except Exception as error:  # Whatever is wrong is what the user asked for.
    problem = (str(error) or type(error).__name__).strip().splitlines()[0]
    report = {'ok': False, 'found': problem}
  print('\n' + json.dumps(report), flush=True)


if __name__ == '__main__':
  main()
