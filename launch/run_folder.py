"""A run's folder: made, checked against an earlier run, and labelled."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs import checks, fields, schema
from launch import cli, run_files

# What a resumed run must share with its checkpoint: who acts in what, and the
# shapes and meaning of the learner's state.
_FIXED_FIELDS = (
  'seed',
  'env',
  'agent',
  'actors.unroll_length',
  'optimizer.name',
  'optimizer.schedule',
  'meta.mode',
  'meta.parameters',
)
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


def default_workdir(config: schema.Config) -> str:
  """runs/<game>-<mode>-<seed>, in the working directory."""
  return os.path.join(
    'runs', f'{config.env.game}-{config.meta.mode}-{config.seed}'
  )


def prepare(
  config: schema.Config, workdir: str, argv: Sequence[str]
) -> list[str]:
  """Makes the folder ready for a new run or for resuming the one in it.

  Args:
    config: of the run that is about to start.
    workdir: its folder, which need not exist.
    argv: the command line, for the record.

  Returns:
    What changed since the last start, as `field: old -> new`.

  Raises:
    UsageError: the folder cannot be written to.
    ConfigError: its checkpoints were made under another configuration.
  """
  path = run_files.config(workdir)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = run_files.read_json(path)
    changes = (
      list(differences(before, schema.to_dict(config))) if before else []
    )
    if _has_checkpoints(workdir):
      for field, old, new in changes:
        _check_resumable(field, old, new, workdir)
    run_files.write_json(path, schema.to_dict(config))
    record_start(workdir, argv)
  except OSError as error:
    raise cli.UsageError(
      f'--workdir={workdir}: cannot be written to: {error.strerror}'
    ) from error
  return [f'{field}: {old} -> {new}' for field, old, new in changes]


def read_config(workdir: str | None) -> schema.Config:
  """Returns the configuration of the run that --workdir names.

  Raises:
    UsageError: it is missing, or not the folder of a run.
    ConfigError: the configuration is not one of this version.
  """
  if workdir is None:
    raise cli.UsageError('--workdir is missing: the folder of a run')
  path = run_files.config(workdir)
  values = run_files.read_json(path)
  if not isinstance(values, dict):
    raise cli.UsageError(
      f'--workdir={workdir}: is not the folder of a run, {path} cannot be read'
    )
  return schema.from_config_dict(values)


def _has_checkpoints(workdir: str) -> bool:
  folder = pathlib.Path(workdir, 'checkpoints')
  return folder.is_dir() and any(folder.iterdir())


def _check_resumable(field: str, old: Any, new: Any, workdir: str) -> None:
  if fields.lies_in(field, _FIXED_FIELDS):
    raise checks.ConfigError(
      field,
      new,
      f'but the checkpoints in {workdir} were made with {old!r}; go on with '
      'that, or take another --workdir',
    )


def differences(
  old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, Any, Any]]:
  """Yields (field, old value, new value) wherever two configurations differ."""
  for name in {**old, **new}:
    before, after = old.get(name), new.get(name)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
      yield from differences(before, after, f'{prefix}{name}.')
    elif _plain(before) != _plain(after):
      yield f'{prefix}{name}', before, after


def _plain(value: Any) -> Any:
  """JSON has no tuples."""
  return list(value) if isinstance(value, tuple) else value


def record_start(workdir: str, argv: Sequence[str]) -> None:
  """Appends one entry to provenance.json."""
  path = pathlib.Path(workdir, 'provenance.json')
  starts = run_files.read_json(path, [])
  starts.append(provenance(argv))
  run_files.write_json(path, starts)


def provenance(argv: Sequence[str]) -> dict[str, Any]:
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
  root = pathlib.Path(__file__).resolve().parent.parent
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
