"""Draws learning curves of runs: `python -m bmg plot RUN... --out=PNG`.

A RUN is a run's folder, or LABEL=FOLDER,FOLDER,... for several runs that are
drawn as one curve: their mean, and the range from the lowest to the highest.

  python -m bmg plot bmg=runs/a,runs/b none=runs/c --out=curves.png
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import artist, axes, ticker
from matplotlib import figure as figure_lib

from bmg.configs import schema
from bmg.evaluation import figure_style, read

Groups = dict[str, list[read.Run]]

_GRID_POINTS = 300
_RETURNS = ('episode_return', 'mean_return')
_AXIS_LABELS = {
  'num_frames': 'emulator frames',
  'seconds': 'seconds of training',
  'episode_return': 'training: episode return',
  'mean_return': 'evaluation: mean return',
}


def load_groups(specs: Sequence[str], by: str | None = None) -> Groups:
  """Reads the runs and puts those with one label together.

  Args:
    specs: FOLDER, or LABEL=FOLDER,FOLDER,...
    by: a field of the configuration, as `meta.mode`, whose value labels the
      runs that are given without a label; or `variant`, in a sweep of them.

  Raises:
    RecordsError: a run cannot be read, or has no such field or no variant.
  """
  groups: Groups = {}
  for spec in specs:
    label, separator, folders = spec.rpartition('=')
    for folder in folders.split(','):
      run = read.load_run(folder)
      if not separator:
        label = (
          read.label(folder, run.config, by) if by else _folder_label(folder)
        )
      groups.setdefault(label, []).append(run)
  return groups


def mean_and_range(
  curves: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Averages curves over the x-range that all of them cover.

  Args:
    curves: pairs of ascending x [n] and y [n]; n may differ.

  Returns:
    x, mean, lowest and highest y, each [m]. A single curve comes back as it is.
  """
  if len(curves) == 1:
    x, y = curves[0]
    return x, y, y, y
  start = max(x[0] for x, _ in curves)
  end = min(x[-1] for x, _ in curves)
  grid = np.linspace(start, max(start, end), _GRID_POINTS)
  ys = np.stack([np.interp(grid, x, y) for x, y in curves])
  return grid, ys.mean(axis=0), ys.min(axis=0), ys.max(axis=0)


def draw(
  groups: Groups,
  out: str,
  x: str = 'num_frames',
  y: Sequence[str] = (),
  smooth: int = 1,
  meta: bool = False,
) -> None:
  """Draws one panel per column and saves the figure.

  Args:
    groups: runs by label.
    out: path of the picture; its ending says the format.
    x: column of the x-axis.
    y: columns to draw, of the learner and of the evaluator alike; by default
      the training and the evaluation return, as far as there are any.
    smooth: rows to average over, for the learner's columns.
    meta: adds a panel for each meta-parameter that was recorded.

  Raises:
    RecordsError: no run has such a column.
    OSError, ValueError: the picture cannot be written in that place or format.
  """
  columns = list(y) or _recorded(groups, _RETURNS) or list(_RETURNS)
  panels = columns + (_meta_columns(groups) if meta else [])
  num_columns = min(len(panels), 3 if meta else 2)
  num_rows = -(-len(panels) // num_columns)
  # Without pyplot: no display, and no global state.
  figure = figure_lib.Figure(
    figsize=(4.8 * num_columns, 3.4 * num_rows + 0.4), layout='constrained'
  )
  labels: dict[str, artist.Artist] = {}
  with matplotlib.rc_context(figure_style.STYLE):
    for index, column in enumerate(panels):
      axis = figure.add_subplot(num_rows, num_columns, index + 1)
      _draw_panel(axis, groups, x, column, smooth)
      # Not every panel has every label.
      handles, names = axis.get_legend_handles_labels()
      labels |= dict(zip(names, handles, strict=True))
    figure.legend(
      list(labels.values()),
      list(labels),
      loc='outside upper center',
      ncols=min(len(labels), 4),
    )
    figure.savefig(out, dpi=150)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status."""
  args = _parse(argv)
  try:
    groups = load_groups(args.runs, args.group)
    draw(groups, args.out, args.x, args.y, args.smooth, args.meta)
  except (read.RecordsError, OSError, ValueError) as error:
    print(f'bmg plot: {error}', file=sys.stderr)
    return 1
  print(args.out)
  return 0


def entry() -> None:
  """The command `bmg plot`."""
  sys.exit(main())


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='bmg plot',
    description='Draws learning curves of runs.',
    epilog='Example: bmg plot bmg=runs/a,runs/b none=runs/c --out=curves.png',
  )
  parser.add_argument(
    'runs',
    nargs='+',
    metavar='RUN',
    help='a run folder, or LABEL=FOLDER,FOLDER,... for runs drawn as one',
  )
  parser.add_argument('--out', default='curves.png', help='picture to write')
  parser.add_argument(
    '--x', default='num_frames', choices=('num_frames', 'seconds')
  )
  parser.add_argument(
    '--y',
    default=[],
    type=lambda columns: columns.split(','),
    help='columns of learner.csv and evaluation.csv, separated by commas '
    '(default: training and evaluation return)',
  )
  parser.add_argument(
    '--group',
    metavar='FIELD',
    help='label runs by a field of their configuration, as meta.mode; or by '
    'their variant, in a sweep of variants',
  )
  parser.add_argument(
    '--smooth',
    type=_positive_int,
    default=1,
    metavar='ROWS',
    help='average the columns of learner.csv over so many rows',
  )
  parser.add_argument(
    '--meta', action='store_true', help='also draw the meta-parameters'
  )
  return parser.parse_args(argv)


def _positive_int(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'{value} must be at least 1')
  return value


def _folder_label(folder: str) -> str:
  return os.path.basename(os.path.normpath(folder))


def _recorded(groups: Groups, columns: Sequence[str]) -> list[str]:
  """Returns those of `columns` that some run has values of."""
  runs = [run for runs in groups.values() for run in runs]
  return [
    column
    for column in columns
    if any(_curve(run, 'num_frames', column, smooth=1) for run in runs)
  ]


def _meta_columns(groups: Groups) -> list[str]:
  names = [spec.name for spec in dataclasses.fields(schema.MetaParameters)]
  columns = _recorded(groups, [f'meta/{name}' for name in names])
  if not columns:
    raise read.RecordsError('none of the runs recorded a meta-parameter')
  return columns


def _draw_panel(
  axis: axes.Axes, groups: Groups, x: str, column: str, smooth: int
) -> None:
  found = False
  for index, (label, runs) in enumerate(groups.items()):
    curves = [
      curve for run in runs if (curve := _curve(run, x, column, smooth))
    ]
    if not curves:
      continue
    found = True
    color = figure_style.COLORS[index % len(figure_style.COLORS)]
    xs, mean, lowest, highest = mean_and_range(curves)
    name = f'{label} ({len(curves)} runs)' if len(curves) > 1 else label
    axis.plot(xs, mean, color=color, label=name)
    if len(curves) > 1:
      axis.fill_between(xs, lowest, highest, color=color, alpha=0.2, lw=0)
  if not found:
    raise read.RecordsError(
      f'no run recorded {column!r} over {x!r}; there is: '
      + ', '.join(sorted(_all_columns(groups)))
    )
  axis.set_title(_AXIS_LABELS.get(column, column))
  axis.set_xlabel(_AXIS_LABELS[x])
  if x == 'num_frames':
    # 2M rather than 2000000.
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))


def _curve(
  run: read.Run, x: str, column: str, smooth: int
) -> tuple[np.ndarray, np.ndarray] | None:
  """Finds a column in the learner's rows or else in the evaluator's."""
  for rows in (run.learner, run.evaluation):
    if rows is None or column not in rows:
      continue
    rows = _with_training_time(rows, run) if x == 'seconds' else rows
    ys = pd.to_numeric(rows[column], errors='coerce')
    if rows is run.learner:
      ys = ys.rolling(smooth, min_periods=1).mean()
    known = ys.notna() & rows[x].notna()
    if known.any():
      return rows[x][known].to_numpy(), ys[known].to_numpy()
  return None


def _all_columns(groups: Groups) -> set[str]:
  return {
    str(column)
    for runs in groups.values()
    for run in runs
    for rows in (run.learner, run.evaluation)
    if rows is not None
    for column in rows.columns
  }


def _with_training_time(rows: pd.DataFrame, run: read.Run) -> pd.DataFrame:
  """Replaces an evaluation's own duration by the learner's clock."""
  if rows is run.learner or run.learner is None:
    return rows
  clock = np.interp(
    rows['num_frames'], run.learner['num_frames'], run.learner['seconds']
  )
  return rows.assign(seconds=clock)


if __name__ == '__main__':
  entry()
