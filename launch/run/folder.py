"""A run's folder: made, checked against an earlier run, and labelled."""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bmg.configs import schema
from bmg.configs.schema import checks, fields, resume
from bmg.launch import cli
from bmg.launch.run import files, provenance


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
  path = files.config(workdir)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = files.read_json(path)
    changes = (
      list(differences(before, schema.to_dict(config))) if before else []
    )
    if _has_checkpoints(workdir):
      for field, old, new in changes:
        _check_resumable(field, old, new, workdir)
    files.write_json(path, schema.to_dict(config))
    provenance.record_start(workdir, argv)
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
  path = files.config(workdir)
  values = files.read_json(path)
  if not isinstance(values, dict):
    raise cli.UsageError(
      f'--workdir={workdir}: is not the folder of a run, {path} cannot be read'
    )
  return schema.from_config_dict(values)


def _has_checkpoints(workdir: str) -> bool:
  folder = pathlib.Path(workdir, 'checkpoints')
  return folder.is_dir() and any(folder.iterdir())


def _check_resumable(field: str, old: Any, new: Any, workdir: str) -> None:
  if not fields.may_change(field, old, new, resume.Kind.LEARNING):
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
