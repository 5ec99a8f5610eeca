"""A sweep's folder: its settings, checked against those it was made with."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bmg.configs import schema
from bmg.configs.schema import checks, fields, resume
from bmg.launch import cli
from bmg.launch.run import files, provenance
from bmg.launch.run import folder as run_folder
from bmg.launch.sweep import cells

# What the sweep itself goes by, of all cells alike.
_SHARED_FIELDS = ('num_frames', 'kubernetes.namespace')


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all cells of a sweep have in common, and which there are."""

  recipe: str
  overrides: Mapping[str, Any]
  launcher: str
  games: tuple[str, ...]
  seeds: tuple[int, ...]
  variants: tuple[str, ...]
  # Resolved, but for game and seed; by variant, those of earlier starts too.
  configs: Mapping[str, Mapping[str, Any]]

  @property
  def num_frames(self) -> int:
    """Emulator frames asked of each cell."""
    return int(self.configs[self.variants[0]]['num_frames'])


def common_configs(
  configs: Mapping[str, schema.Config],
) -> dict[str, dict[str, Any]]:
  """Returns the fields that are the same in all cells of a variant.

  Args:
    configs: by variant.

  Raises:
    UsageError: variants differ in what the sweep itself goes by.
  """
  common = {variant: schema.to_dict(configs[variant]) for variant in configs}
  for values in common.values():
    del values['seed'], values['env']['game']
  for field in _SHARED_FIELDS:
    found = {variant: fields.get(common[variant], field) for variant in common}
    if len(set(found.values())) > 1:
      said = ', '.join(f'{value} in {name}' for name, value in found.items())
      raise cli.UsageError(
        f'--variants={",".join(found)}: config.{field} must be the same in all '
        f'of them, but is {said}; --config.{field}=... sets it'
      )
  return common


def _path(workdir: str) -> pathlib.Path:
  return pathlib.Path(workdir, 'sweep.json')


def read(workdir: str) -> Settings:
  """Returns the settings that the folder was made with.

  Raises:
    UsageError: it is not the folder of a sweep.
  """
  saved = files.read_json(_path(workdir))
  try:
    return _from_json(saved)
  except (KeyError, TypeError) as error:
    raise cli.UsageError(
      f'--workdir={workdir}: is not the folder of a sweep, {_path(workdir)} '
      'cannot be read'
    ) from error


def _from_json(saved: Any) -> Settings:
  plain = 'config' in saved
  return Settings(
    recipe=saved['recipe'],
    overrides=saved['overrides'],
    launcher=saved['launcher'],
    games=tuple(saved['games']),
    seeds=tuple(saved['seeds']),
    variants=cells.NO_VARIANTS if plain else tuple(saved['variants']),
    configs={'': saved['config']} if plain else saved['configs'],
  )


def _to_json(settings: Settings, saved: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what `_from_json` takes; `saved` is what it took last."""
  values = {
    'recipe': settings.recipe,
    'overrides': settings.overrides,
    'launcher': settings.launcher,
    'games': settings.games,
    'seeds': settings.seeds,
  }
  if settings.variants == cells.NO_VARIANTS:
    return {**values, 'config': settings.configs['']}
  grid = cells.make_cells(
    '', settings.games, settings.seeds, settings.launcher, settings.variants
  )
  # What was trained by variants that are left out now stays in the folder.
  return {
    **values,
    'variants': settings.variants,
    'configs': {**saved.get('configs', {}), **settings.configs},
    'folders': {
      **saved.get('folders', {}),
      **{cell.workdir: cell.variant for cell in grid},
    },
  }


def _trained(workdir: str) -> set[str]:
  """Returns the variants that some cell has a checkpoint of."""
  folder = pathlib.Path(workdir)
  folders = files.read_json(_path(workdir), {}).get('folders')
  if folders is None:
    return (
      set(cells.NO_VARIANTS) if any(folder.glob('*/checkpoints/*')) else set()
    )
  return {
    variant
    for cell, variant in folders.items()
    if any((folder / cell).glob('checkpoints/*'))
  }


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
  if files.config(workdir).exists():
    raise cli.UsageError(
      f'--workdir={workdir}: holds a single run; take another folder'
    )
  if not _path(workdir).exists():
    return []
  before = read(workdir)
  changes = [
    (name, getattr(before, name), getattr(settings, name))
    for name in ('variants', 'games', 'seeds', 'launcher')
    if getattr(before, name) != getattr(settings, name)
  ]
  trained = _trained(workdir)
  if trained:
    _check_both_have_variants(workdir, before, settings)
  launcher = {before.launcher, settings.launcher}
  if trained and len(launcher) > 1 and 'kubernetes' in launcher:
    raise cli.UsageError(
      f'--launcher={settings.launcher}: but the cells in {workdir} were '
      f'trained with {before.launcher}, under names that differ; go on with '
      'that, or take another --workdir'
    )
  for variant in settings.variants:
    for field, old, new in run_folder.differences(
      before.configs.get(variant, settings.configs[variant]),
      settings.configs[variant],
    ):
      if variant in trained and not fields.may_change(
        field, old, new, resume.Kind.EXTENT
      ):
        whose = f'the variant {variant!r}' if variant else 'the sweep'
        raise checks.ConfigError(
          field,
          new,
          f'but cells of {whose} in {workdir} were trained with {old!r}; go on '
          'with that, or take another --workdir',
        )
      of = f' of {variant}' if variant else ''
      changes.append((f'config.{field}{of}', old, new))
  return [f'{field}: {old} -> {new}' for field, old, new in changes]


def _check_both_have_variants(
  workdir: str, before: Settings, settings: Settings
) -> None:
  had, has = (s.variants != cells.NO_VARIANTS for s in (before, settings))
  if had and not has:
    raise cli.UsageError(
      f'--variants is missing: the cells in {workdir} are of the variants '
      f'{", ".join(before.configs)}; name some, or take another --workdir'
    )
  if has and not had:
    raise cli.UsageError(
      f'--variants={",".join(settings.variants)}: but the cells in {workdir} '
      'were trained without variants; go on so, or take another --workdir'
    )


def write(workdir: str, settings: Settings, argv: Sequence[str]) -> None:
  """Writes the settings, and who starts the sweep when and with what.

  Raises:
    OSError: the folder cannot be written to.
  """
  saved = files.read_json(_path(workdir), {})
  starts = [*saved.get('starts', []), provenance.describe(argv)]
  files.write_json(
    _path(workdir), {**_to_json(settings, saved), 'starts': starts}
  )
