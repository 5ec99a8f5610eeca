"""Finds the runs of a report, reads them, and says what is odd about them."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bmg.configs import schema
from bmg.configs.schema import fields, resume
from bmg.evaluation import read
from bmg.evaluation import travel as travel_lib

# Labels runs that are in no sweep of variants.
_GROUP = 'meta.mode'
# What tells the runs of one label apart; in all else they should agree.
_OWN_FIELDS = ('seed', 'env.game')
_PARAMETERS = tuple(
  spec.name for spec in dataclasses.fields(schema.MetaParameters)
)


class Travel(NamedTuple):
  """How one meta-parameter moved in a run."""

  # At the end, logits from where it started.
  travel: float
  # Median over the rows of its steps' share of the nominal one.
  share: float
  hardly: bool


@dataclasses.dataclass(frozen=True)
class Run:
  """One run: one game, one seed."""

  label: str
  folder: str
  game: str
  seed: int
  # Emulator frames that it was asked for.
  num_frames: int
  config: Mapping[str, Any]
  # Rows by `num_frames`, oldest first; None before the first one.
  learner: pd.DataFrame | None
  evaluation: pd.DataFrame | None
  # Of each learned meta-parameter, as 'discount' or 'discount_aux1'; none of
  # runs that are older than these records.
  travels: Mapping[str, Travel]
  # What provenance.json says of each start.
  starts: Sequence[Mapping[str, Any]]

  @property
  def frames_done(self) -> int:
    """Emulator frames up to its last record."""
    return max(
      (
        int(rows['num_frames'].iloc[-1])
        for rows in (self.learner, self.evaluation)
        if rows is not None
      ),
      default=0,
    )


class Difference(NamedTuple):
  """A field of the configuration in which the runs of one label differ."""

  label: str
  field: str
  # Folders by value, as text.
  folders: Mapping[str, Sequence[str]]

  @property
  def matters(self) -> bool:
    """Whether it changes what is learned or measured."""
    return fields.kind(self.field) is not resume.Kind.MACHINERY


class Collection(NamedTuple):
  """All runs of a report, by label and game, and what is odd about them."""

  runs: Sequence[Run]
  warnings: Sequence[str]
  differences: Sequence[Difference]

  @property
  def labels(self) -> list[str]:
    """In the order in which they were given."""
    return list(dict.fromkeys(run.label for run in self.runs))

  @property
  def games(self) -> list[str]:
    """In alphabetical order."""
    return sorted({run.game for run in self.runs})


def collect(specs: Sequence[str], group: str | None = None) -> Collection:
  """Reads all runs.

  Args:
    specs: FOLDER or LABEL=FOLDER,FOLDER,...; a folder is a run's, or holds
      runs at any depth.
    group: the field of the configuration whose value labels the runs that are
      given without a label, or `variant`. By default it is the variant of runs
      that have one, and `meta.mode` of others.

  Raises:
    RecordsError: a folder is no run and holds none, was given twice, or its
      records are damaged.
  """
  runs: list[Run] = []
  warnings: list[str] = []
  seen: dict[str, str] = {}
  for spec in specs:
    label, separator, folders = spec.rpartition('=')
    for given in folders.split(','):
      for folder in _run_folders(given):
        real = os.path.realpath(folder)
        if real in seen:
          # A run that counts twice would make the intervals too narrow.
          raise read.RecordsError(f'the run {folder!r} is given twice')
        seen[real] = folder
        config = read.read_config(folder)
        if folder != given and fields.get(config, 'env.game') is None:
          warnings.append(f'{folder} is left out: it is no run of Atari')
          continue
        runs.append(_load(folder, config, label if separator else None, group))
  if not runs:
    raise read.RecordsError(f'no run of Atari in: {", ".join(specs)}')
  warnings += _repeated_seeds(runs)
  return Collection(runs, warnings, list(_differences(runs)))


def meta_columns(run: Run) -> list[str]:
  """The columns with its hyper-parameters, of all heads, main head first."""
  if run.learner is None:
    return []
  return [
    column
    for name in _PARAMETERS
    for column in run.learner.columns
    if column.partition('_aux')[0] == f'meta/{name}'
    and run.learner[column].notna().any()
  ]


def series(
  rows: pd.DataFrame | None, column: str
) -> tuple[np.ndarray, np.ndarray] | None:
  """Frames [n] and values [n] of a column, where it has any; else None."""
  if rows is None or column not in rows:
    return None
  known = rows[rows[column].notna()]
  if known.empty:
    return None
  return known['num_frames'].to_numpy(float), known[column].to_numpy(float)


def _run_folders(given: str) -> list[str]:
  """The folder itself if it is a run's, else those of all runs below it."""
  if not os.path.isdir(given):
    raise read.RecordsError(f'there is no folder {given!r}')
  if any(
    os.path.exists(os.path.join(given, name))
    for name in ('config.json', 'learner.csv')
  ):
    return [given]
  found = []
  for folder, subfolders, files in os.walk(given):
    subfolders.sort()
    if 'config.json' in files:
      found.append(folder)
      subfolders.clear()
  if not found:
    raise read.RecordsError(
      f'{given!r} is no run and holds none: there is no config.json in it'
    )
  return found


def _load(
  folder: str,
  config: Mapping[str, Any],
  label: str | None,
  group: str | None,
) -> Run:
  values: dict[str, Any] = {}
  for name, kind in (('env.game', str), ('seed', int), ('num_frames', int)):
    value = fields.get(config, name)
    if not isinstance(value, kind):
      raise read.RecordsError(
        f'{os.path.join(folder, "config.json")!r} does not say {name!r}'
        if config
        else f'{folder!r} has no config.json, which says the game'
      )
    values[name] = value
  if label is None and group is None:
    label = read.read_variant(folder)
  if label is None:
    label = read.label(folder, config, group or _GROUP)
  learner = _rows(folder, 'learner', 'episode_return')
  travels: dict[str, Travel] = {}
  if learner is not None:
    travels = _travels(learner)
    # Summed up, they need not be kept: 171 whole runs are gigabytes.
    learner = learner.drop(columns=_of_parameters(learner, 'travel', 'step'))
  return Run(
    label=label,
    folder=folder,
    game=values['env.game'],
    seed=values['seed'],
    num_frames=values['num_frames'],
    config=config,
    learner=learner,
    evaluation=_rows(folder, 'evaluation', 'mean_return'),
    travels=travels,
    starts=read.read_starts(folder),
  )


def _rows(folder: str, name: str, score: str) -> pd.DataFrame | None:
  """Reads the columns that a report needs; None if there is no row yet."""
  wanted = ('num_frames', 'num_updates', score)
  try:
    rows = read.read_records(folder, name)
  except read.NoRowsError:
    return None
  rows = rows[
    [
      *(column for column in rows.columns if column in wanted),
      *_of_parameters(rows, 'meta', 'travel', 'step'),
    ]
  ].copy()
  path = os.path.join(folder, f'{name}.csv')
  for column in rows.columns:
    if not pd.api.types.is_numeric_dtype(rows[column]):
      raise read.RecordsError(
        f'{path!r} is damaged: {column!r} holds what is no number'
      )
  if not rows['num_frames'].is_monotonic_increasing:
    raise read.RecordsError(f"{path!r} is damaged: 'num_frames' goes back")
  return rows


def _of_parameters(rows: pd.DataFrame, *groups: str) -> list[str]:
  """The columns GROUP/NAME or GROUP/NAME_aux1 of the hyper-parameters."""
  found = []
  for column in map(str, rows.columns):
    group, _, name = column.partition('/')
    if group in groups and name.partition('_aux')[0] in _PARAMETERS:
      found.append(column)
  return found


def _travels(rows: pd.DataFrame) -> dict[str, Travel]:
  found = {}
  for column in _of_parameters(rows, 'travel'):
    name = column.removeprefix('travel/')
    travels = rows[column].dropna()
    if travels.empty or not {f'step/{name}', 'num_updates'} <= {*rows.columns}:
      continue
    travel = float(travels.iloc[-1])
    share = float(rows[f'step/{name}'].median())
    num_updates = float(rows['num_updates'].iloc[-1])
    hardly = travel_lib.hardly_moves(travel, share, num_updates)
    found[name] = Travel(travel, share, hardly)
  return found


def _repeated_seeds(runs: Sequence[Run]) -> Iterator[str]:
  folders: dict[tuple[str, str, int], list[str]] = {}
  for run in runs:
    key = (run.label, run.game, run.seed)
    folders.setdefault(key, []).append(run.folder)
  for (label, game, seed), repeated in folders.items():
    if len(repeated) > 1:
      yield (
        f'{label}, {game}: seed {seed} was run {len(repeated)} times, and '
        f'each counts as a seed of its own: {", ".join(repeated)}'
      )


def _differences(runs: Sequence[Run]) -> Iterator[Difference]:
  """Compares the configurations of all runs of a label, field by field."""
  by_label: dict[str, list[Run]] = {}
  for run in runs:
    by_label.setdefault(run.label, []).append(run)
  for label, group in by_label.items():
    flat = {run.folder: fields.flatten(run.config) for run in group}
    names = dict.fromkeys(name for values in flat.values() for name in values)
    for name in names:
      if name in _OWN_FIELDS:
        continue
      folders: dict[str, list[str]] = {}
      for folder, values in flat.items():
        value = str(values.get(name, 'missing'))
        folders.setdefault(value, []).append(folder)
      if len(folders) > 1:
        yield Difference(label, name, folders)
