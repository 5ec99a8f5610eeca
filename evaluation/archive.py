"""Keeps the small records of finished runs: `python -m bmg archive`.

  python -m bmg archive runs/study docs/results/study

copies of every finished run in a folder what reports, plots and sweeps read:
its configuration, its scores, and a hundred rows of the learner's records. A
report on the copy says what one on the runs would. Copied back, the runs count
as done for their sweep, which then goes on with the others.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bmg.evaluation import read

# Not of the learning, and of the one machine alone.
_LEFT_OUT = ('command_line', 'executable', 'host')
# Columns of the learner's records; and groups of such, before a slash.
_COLUMNS = (
  'num_frames',
  'num_updates',
  'seconds',
  'frames_per_second_long',
  'episode_return',
  'episode_length',
  'episodes',
  'policy_lag_mean',
)
_GROUPS = ('meta', 'travel', 'step')
_DIGITS = 5


def archive(source: str, destination: str, num_rows: int = 100) -> list[str]:
  """Copies the records of finished runs.

  Args:
    source: a run's folder, or one that holds runs at any depth.
    destination: gets them under the same names; what is there is replaced.
    num_rows: of the learner's records of each run, at most. The last one is
      always there.

  Returns:
    The folders of the runs, relative to `source`.

  Raises:
    RecordsError: the folder does not exist, or a run in it is damaged.
    OSError: the destination cannot be written to.
  """
  root, target = pathlib.Path(source), pathlib.Path(destination)
  if not root.is_dir():
    raise read.RecordsError(f'there is no folder {source!r}')
  copied = []
  for path in sorted(root.rglob('config.json')):
    run = path.parent
    if (run / 'state' / 'finished.json').exists():
      copied.append(str(run.relative_to(root)))
      _copy_run(run, target / run.relative_to(root), num_rows)
  settings = read.read_json(source, 'sweep.json', {})
  if copied and settings:
    _write_json(target / 'sweep.json', {**settings, 'starts': []})
  return copied


def thin(rows: pd.DataFrame, num_rows: int) -> pd.DataFrame:
  """Returns at most `num_rows` rows, evenly spread, the last one among them."""
  if len(rows) <= num_rows:
    return rows
  indices = np.linspace(0, len(rows) - 1, num_rows).round().astype(int)
  return rows.iloc[np.unique(indices)]


def _copy_run(run: pathlib.Path, target: pathlib.Path, num_rows: int) -> None:
  rows = read.read_records(str(run), 'learner')
  kept = [
    column
    for column in map(str, rows.columns)
    if column in _COLUMNS or column.partition('/')[0] in _GROUPS
  ]
  _write_json(target / 'config.json', read.read_config(str(run)))
  _write_json(
    target / 'provenance.json',
    [_impersonal(start) for start in read.read_starts(str(run))],
  )
  finished = read.read_json(str(run), 'state/finished.json', {})
  _write_json(target / 'state' / 'finished.json', finished)
  _write_rows(target, 'learner', thin(rows[kept], num_rows))
  try:
    evaluation = read.read_records(str(run), 'evaluation')
  except read.NoRowsError:
    return
  _write_rows(target, 'evaluation', evaluation)


def _impersonal(start: Mapping[str, Any]) -> dict[str, Any]:
  return {key: value for key, value in start.items() if key not in _LEFT_OUT}


def _write_rows(target: pathlib.Path, name: str, rows: pd.DataFrame) -> None:
  """Writes the rows, and the last one as JSON, which sweeps look at."""
  rows.to_csv(target / f'{name}.csv', index=False, float_format=f'%.{_DIGITS}g')
  last = rows.iloc[-1]
  _write_text(
    target / f'{name}.jsonl',
    last[last.notna()].to_json(double_precision=_DIGITS) + '\n',
  )


def _write_json(path: pathlib.Path, values: Any) -> None:
  _write_text(path, json.dumps(values, indent=1) + '\n')


def _write_text(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding='utf-8')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='bmg archive',
    description='Keeps the small records of finished runs.',
  )
  parser.add_argument('source', help='a run, or a folder that holds runs')
  parser.add_argument('destination', help='where their records go')
  parser.add_argument(
    '--rows',
    type=int,
    default=100,
    help="of the learner's records of each run",
  )
  args = parser.parse_args(argv)
  if args.rows < 1:
    parser.error(f'--rows={args.rows}: must be at least 1')
  try:
    copied = archive(args.source, args.destination, args.rows)
  except (read.RecordsError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  for folder in copied:
    print(folder)
  print(f'{len(copied)} finished runs in {args.destination}')
  return 0


def entry() -> None:
  """The command `bmg archive`."""
  sys.exit(main())


if __name__ == '__main__':
  entry()
