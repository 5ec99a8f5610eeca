"""A sweep's folder: its settings, checked against those it was made with."""

import dataclasses
import fcntl
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from configs import checks, fields, schema
from launch import cli, run_files, run_folder

# What may differ from start to start, as it does not change what is learned. A
# run by itself may change more; the cells of a sweep have to be alike.
_FREE_FIELDS = ('num_frames', 'evaluator', *fields.MACHINERY)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all cells of a sweep have in common, and which there are."""

  recipe: str
  overrides: Mapping[str, Any]
  launcher: str
  games: tuple[str, ...]
  seeds: tuple[int, ...]
  # Resolved, but for game and seed.
  config: Mapping[str, Any]

  @property
  def num_frames(self) -> int:
    """Emulator frames asked of each cell."""
    return int(self.config['num_frames'])


def common_config(config: schema.Config) -> dict[str, Any]:
  """Returns every field that is the same in all cells."""
  values = schema.to_dict(config)
  del values['seed'], values['env']['game']
  return values


def _path(workdir: str) -> pathlib.Path:
  return pathlib.Path(workdir, 'sweep.json')


def read(workdir: str) -> Settings:
  """Returns the settings that the folder was made with.

  Raises:
    UsageError: it is not the folder of a sweep.
  """
  saved = run_files.read_json(_path(workdir))
  names = [field.name for field in dataclasses.fields(Settings)]
  if not isinstance(saved, dict) or not saved.keys() >= set(names):
    raise cli.UsageError(
      f'--workdir={workdir}: is not the folder of a sweep, {_path(workdir)} '
      'cannot be read'
    )
  values = {name: saved[name] for name in names}
  values.update(games=tuple(saved['games']), seeds=tuple(saved['seeds']))
  return Settings(**values)


def check(workdir: str, settings: Settings) -> list[str]:
  """Checks that a sweep can go on in the folder; writes nothing.

  Args:
    workdir: the sweep's folder, which need not exist.
    settings: of the sweep that is about to start.

  Returns:
    What changed since the last start, as `field: old -> new`.

  Raises:
    UsageError: the folder holds something else.
    ConfigError: cells of it were trained under another configuration.
  """
  if run_files.config(workdir).exists():
    raise cli.UsageError(
      f'--workdir={workdir}: holds a single run; take another folder'
    )
  if not _path(workdir).exists():
    return []
  before = read(workdir)
  changes = [
    (name, getattr(before, name), getattr(settings, name))
    for name in ('games', 'seeds', 'launcher')
    if getattr(before, name) != getattr(settings, name)
  ]
  trained = any(pathlib.Path(workdir).glob('*/checkpoints/*'))
  launcher = {before.launcher, settings.launcher}
  if trained and len(launcher) > 1 and 'kubernetes' in launcher:
    raise cli.UsageError(
      f'--launcher={settings.launcher}: but the cells in {workdir} were '
      f'trained with {before.launcher}, under names that differ; go on with '
      'that, or take another --workdir'
    )
  for field, old, new in run_folder.differences(before.config, settings.config):
    if trained and not fields.lies_in(field, _FREE_FIELDS):
      raise checks.ConfigError(
        field,
        new,
        f'but cells of the sweep in {workdir} were trained with {old!r}; go on '
        'with that, or take another --workdir',
      )
    changes.append((f'config.{field}', old, new))
  return [f'{field}: {old} -> {new}' for field, old, new in changes]


def write(workdir: str, settings: Settings, argv: Sequence[str]) -> None:
  """Writes the settings, and who starts the sweep when and with what.

  Raises:
    OSError: the folder cannot be written to.
  """
  starts = run_files.read_json(_path(workdir), {}).get('starts', [])
  run_files.write_json(
    _path(workdir),
    {
      **dataclasses.asdict(settings),
      'starts': [*starts, run_folder.provenance(argv)],
    },
  )


def in_use(workdir: str) -> bool:
  """Whether somebody holds `local.lock` on the folder, of a run or a sweep."""
  try:
    lock = os.open(run_files.lock(workdir), os.O_RDONLY)
  except OSError:
    return False
  try:
    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except OSError:
    return True
  finally:
    os.close(lock)
  return False
