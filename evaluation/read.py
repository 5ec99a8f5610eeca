"""Reads the records of runs."""

import io
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from bmg.configs.schema import fields

# As a field of a run's configuration: of the recipe, in a sweep.
_VARIANT = 'variant'


class RecordsError(Exception):
  """Records that are asked for do not exist; says which, and what there is."""


class NoRowsError(RecordsError):
  """Nothing has been recorded yet."""


class Run(NamedTuple):
  """What a run has recorded so far."""

  workdir: str
  # The resolved configuration; empty if there is none.
  config: dict[str, Any]
  # Rows by `num_frames`, oldest first; None before the first one.
  learner: pd.DataFrame | None
  evaluation: pd.DataFrame | None


def read_records(workdir: str, name: str) -> pd.DataFrame:
  """Reads `<name>.csv` of a run, which may still be going on.

  Returns:
    One row per record, oldest first. What was not finite, or not recorded, is
    NaN.

  Raises:
    NoRowsError: it has no such rows yet.
    RecordsError: there is no such run, or its records are damaged.
  """
  if not os.path.isdir(workdir):
    raise RecordsError(f'there is no run folder {workdir!r}')
  path = os.path.join(workdir, f'{name}.csv')
  try:
    with open(path, encoding='utf-8') as file:
      text = file.read()
  except FileNotFoundError:
    present = sorted(
      entry for entry in os.listdir(workdir) if entry.endswith('.csv')
    )
    raise NoRowsError(
      f'{workdir!r} has no {name}.csv; it has: {", ".join(present) or "none"}'
    ) from None
  except UnicodeDecodeError as error:
    raise RecordsError(f'{path!r} is damaged: {error}') from error
  # A row that is being written ends without a newline.
  whole = text[: text.rfind('\n') + 1]
  try:
    rows = pd.read_csv(io.StringIO(whole))
  except pd.errors.EmptyDataError:
    rows = pd.DataFrame()
  except pd.errors.ParserError as error:
    # pandas ends some messages with a newline.
    message = str(error).strip()
    raise RecordsError(f'{path!r} is damaged: {message}') from error
  if rows.empty:
    raise NoRowsError(f'{path!r} has no rows yet')
  # Where all rows have more fields than the header, pandas names them by the
  # first ones.
  if not isinstance(rows.index, pd.RangeIndex):
    raise RecordsError(f'{path!r} is damaged: rows are longer than the header')
  if 'num_frames' not in rows:
    raise RecordsError(f"{path!r} is damaged: it has no column 'num_frames'")
  frames = pd.to_numeric(rows['num_frames'], errors='coerce')
  if frames.isna().any():
    # The header is line 1.
    line = int(frames.isna().to_numpy().argmax()) + 2
    raise RecordsError(
      f"{path!r} is damaged: line {line} has no number for 'num_frames'"
    )
  return rows


def load_run(workdir: str) -> Run:
  """Reads all of a run.

  Raises:
    RecordsError: there is no such run, nothing was recorded in it, or it is
      damaged.
  """
  found: dict[str, pd.DataFrame] = {}
  problems = []
  for name in ('learner', 'evaluation'):
    try:
      found[name] = read_records(workdir, name)
    except NoRowsError as error:
      problems.append(str(error))
  if not found:
    raise RecordsError('; '.join(dict.fromkeys(problems)))
  return Run(
    workdir,
    read_config(workdir),
    found.get('learner'),
    found.get('evaluation'),
  )


def read_config(workdir: str) -> dict[str, Any]:
  """Reads the resolved configuration of a run; empty if there is none.

  Raises:
    RecordsError: it is damaged.
  """
  return read_json(workdir, 'config.json', {})


def read_starts(workdir: str) -> list[dict[str, Any]]:
  """Reads what `provenance.json` says of each start of a run, oldest first.

  Raises:
    RecordsError: it is damaged.
  """
  return read_json(workdir, 'provenance.json', [])


def read_variant(workdir: str) -> str | None:
  """Returns the variant of a run in a sweep of variants; None for others.

  Raises:
    RecordsError: the sweep's settings are damaged.
  """
  folder = os.path.realpath(workdir)
  sweep = folder
  # Cells are in <variant>/<game>-<seed>; on Kubernetes, all are side by side.
  for _ in range(2):
    sweep = os.path.dirname(sweep)
    folders = read_json(sweep, 'sweep.json', {}).get('folders', {})
    variant = folders.get(os.path.relpath(folder, sweep))
    if variant is not None:
      return variant
  return None


def label(workdir: str, config: Mapping[str, Any], by: str) -> str:
  """Labels a run.

  Args:
    workdir: its folder.
    config: its configuration.
    by: the field whose value is the label, as `meta.mode`; or `variant`.

  Raises:
    RecordsError: it has no such field, or no variant.
  """
  if by == _VARIANT:
    variant = read_variant(workdir)
    if variant is None:
      raise RecordsError(f'{workdir!r} is in no sweep of variants')
    return variant
  value = fields.get(config, by)
  if value is None:
    raise RecordsError(f'the configuration of {workdir!r} has no field {by!r}')
  return str(value)


def read_json(workdir: str, name: str, default: Any) -> Any:
  """Reads a file of the type of `default`, which stands for a missing one.

  Raises:
    RecordsError: it is damaged, or of another type.
  """
  path = os.path.join(workdir, name)
  try:
    with open(path, encoding='utf-8') as file:
      value = json.load(file)
  except FileNotFoundError:
    return default
  except ValueError as error:
    raise RecordsError(f'{path!r} is not JSON: {error}') from error
  if not isinstance(value, type(default)):
    raise RecordsError(
      f'{path!r} is damaged: it holds a {type(value).__name__}'
    )
  return value
