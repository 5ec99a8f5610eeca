"""Where a run comes from: command lines, packages, source, machine."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import bmg
from bmg.launch.run import files

_PACKAGES = (
  'ale-py',
  'chex',
  'dm-haiku',
  'dm-launchpad',
  'dm-reverb',
  'gymnasium',
  'jax',
  'jaxlib',
  'ml-collections',
  'numpy',
  'optax',
  'orbax-checkpoint',
  'tensorflow-cpu',
)


def record_start(workdir: str, argv: Sequence[str]) -> None:
  """Appends one entry to provenance.json."""
  path = pathlib.Path(workdir, 'provenance.json')
  starts = files.read_json(path, [])
  starts.append(describe(argv))
  files.write_json(path, starts)


def describe(argv: Sequence[str]) -> dict[str, Any]:
  """Says what is started when, from which source and on which machine."""
  return {
    'time': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
    'command_line': list(argv),
    'python': platform.python_version(),
    'executable': sys.executable,
    'packages': _package_versions(),
    'git': _git_revision(),
    'host': platform.node(),
    'platform': platform.platform(),
    'processor': platform.machine(),
    'num_cpus': os.cpu_count(),
  }


def _package_versions() -> dict[str, str | None]:
  versions: dict[str, str | None] = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  return versions


def _git_revision() -> dict[str, Any] | None:
  """Revision of the source, and whether it had uncommitted changes."""
  root = pathlib.Path(bmg.ROOT)
  if not (root / '.git').exists():
    return None

  def git(*args: str) -> str:
    return subprocess.run(
      ['git', '-C', str(root), *args],
      capture_output=True,
      check=True,
      text=True,
      timeout=20,
    ).stdout.strip()

  try:
    return {
      'revision': git('rev-parse', 'HEAD'),
      'dirty': bool(git('status', '--porcelain')),
    }
  except (OSError, subprocess.SubprocessError):
    return None
