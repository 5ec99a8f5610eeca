"""Reads the records of runs."""

import io
import json
import os
from typing import Any, NamedTuple

import pandas as pd


class RecordsError(Exception):
  """Records that are asked for do not exist; says which, and what there is."""


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
    RecordsError: there is no such run, or it has no such rows.
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
    raise RecordsError(
      f'{workdir!r} has no {name}.csv; it has: {", ".join(present) or "none"}'
    ) from None
  # A row that is being written ends without a newline.
  whole = text[: text.rfind('\n') + 1]
  try:
    rows = pd.read_csv(io.StringIO(whole))
  except pd.errors.EmptyDataError:
    rows = pd.DataFrame()
  except pd.errors.ParserError as error:
    raise RecordsError(f'{path!r} is damaged: {error}') from error
  if rows.empty:
    raise RecordsError(f'{path!r} has no rows yet')
  return rows


def load_run(workdir: str) -> Run:
  """Reads all of a run.

  Raises:
    RecordsError: there is no such run, or nothing was recorded in it.
  """
  found: dict[str, pd.DataFrame] = {}
  problems = []
  for name in ('learner', 'evaluation'):
    try:
      found[name] = read_records(workdir, name)
    except RecordsError as error:
      problems.append(str(error))
  if not found:
    raise RecordsError('; '.join(dict.fromkeys(problems)))
  return Run(
    workdir,
    _read_config(workdir),
    found.get('learner'),
    found.get('evaluation'),
  )


def _read_config(workdir: str) -> dict[str, Any]:
  path = os.path.join(workdir, 'config.json')
  try:
    with open(path, encoding='utf-8') as file:
      return json.load(file)
  except FileNotFoundError:
    return {}
  except ValueError as error:
    raise RecordsError(f'{path!r} is not JSON: {error}') from error
