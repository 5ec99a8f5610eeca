"""Says what meta-learning makes of wrong hyper-parameters: table and figure.

Usage: python -m bmg.experiments.bad_starts RUNS... [--out=FOLDER]

RUNS are folders of `bmg sweep` with configs/studies/bad_starts.py, or copies
of such by `bmg archive`; one for each game, or for several.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import axes, ticker
from matplotlib import figure as figure_lib
from rich.console import Console
from rich.table import Table

from bmg.configs.studies import bad_starts
from bmg.evaluation import figure_style, plot, read
from bmg.experiments.two_colors.report import Interval, interval

# A run's result is its mean return over the last share of its frames.
_LAST = 0.1
# Where nothing is wrong.
_GOOD = 'good'
_METHOD_NAMES = {'none': 'fixed', 'mg': 'MG', 'bmg': 'BMG'}


@dataclasses.dataclass(frozen=True)
class Cell:
  """The runs of one game, start and method: one for each seed."""

  game: str
  start: str
  method: str
  runs: Sequence[read.Run]

  @property
  def results(self) -> np.ndarray:
    """Mean training return at the end of each run, float [seeds]."""
    return np.array([result(run) for run in self.runs])

  @property
  def travel(self) -> float:
    """Mean way of the wrong meta-parameter, in logits; NaN if it is fixed."""
    wrong = bad_starts.STARTS[self.start]
    if wrong is None or self.method == 'none':
      return float('nan')
    column = f'travel/{wrong[0]}'
    return float(np.mean([_learner(run)[column].iloc[-1] for run in self.runs]))


def result(run: read.Run) -> float:
  """Returns the mean training return over the last tenth of a run."""
  rows = _learner(run)
  frames = rows['num_frames']
  last = rows[frames >= (1.0 - _LAST) * frames.iloc[-1]]
  return float(last['episode_return'].mean())


def collect(folders: Sequence[str]) -> list[Cell]:
  """Finds the runs of all folders.

  Raises:
    RecordsError: a folder does not exist, or holds no run of the study.
  """
  runs: dict[tuple[str, str, str], list[read.Run]] = {}
  for folder in folders:
    paths = sorted(pathlib.Path(folder).rglob('config.json'))
    found = [
      p.parent for p in paths if p.parent.parent.name in bad_starts.VARIANTS
    ]
    if not found:
      raise read.RecordsError(
        f'{folder!r} holds no run of configs/studies/bad_starts.py'
      )
    for path in found:
      run = read.load_run(str(path))
      start, method = path.parent.name.split('-')
      runs.setdefault((run.config['env']['game'], start, method), []).append(
        run
      )
  order = {variant: index for index, variant in enumerate(bad_starts.VARIANTS)}
  return [
    Cell(*key, found)
    for key, found in sorted(
      runs.items(), key=lambda item: (item[0][0], order['-'.join(item[0][1:])])
    )
  ]


def table(cells: Sequence[Cell]) -> pd.DataFrame:
  """One row for each game, start and method.

  `recovers` says whether the mean lies within the 95 % interval of the good
  start with fixed hyper-parameters, or above.
  """
  references = {
    cell.game: interval(cell.results)
    for cell in cells
    if (cell.start, cell.method) == (_GOOD, 'none')
  }
  rows = []
  for cell in cells:
    found = interval(cell.results)
    good = references.get(cell.game)
    rows.append(
      {
        'game': cell.game,
        'start': cell.start,
        'method': cell.method,
        'seeds': len(cell.runs),
        **found._asdict(),
        'travel': cell.travel,
        'recovers': _recovers(found, good),
      }
    )
  return pd.DataFrame(rows)


def _recovers(found: Interval, good: Interval | None) -> bool | None:
  if good is None or np.isnan(good.low):
    return None
  return found.mean >= good.low


def draw(cells: Sequence[Cell], out: pathlib.Path) -> None:
  """Draws returns, and the wrong meta-parameters, over frames.

  Raises:
    OSError: the picture cannot be written.
  """
  games = list(dict.fromkeys(cell.game for cell in cells))
  starts = [
    start
    for start in bad_starts.STARTS
    if any(cell.start == start for cell in cells)
  ]
  figure = figure_lib.Figure(
    figsize=(2.9 * len(starts) + 0.5, 3.6 * len(games) + 0.5),
    layout='constrained',
  )
  with matplotlib.rc_context(figure_style.STYLE):
    grid = figure.subplots(
      2 * len(games),
      len(starts),
      squeeze=False,
      sharex=False,
      height_ratios=[3, 2] * len(games),
    )
    for row, game in enumerate(games):
      for column, start in enumerate(starts):
        here = {
          cell.method: cell
          for cell in cells
          if (cell.game, cell.start) == (game, start)
        }
        top, below = grid[2 * row][column], grid[2 * row + 1][column]
        top.set_title(f'{game}: {_start_name(start)}', fontsize='small')
        _draw_curves(top, here, 'episode_return')
        _draw_meta_parameter(below, here, start)
        if column == 0:
          top.set_ylabel('training return')
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=3)
    figure.savefig(out, dpi=150)


def _start_name(start: str) -> str:
  wrong = bad_starts.STARTS[start]
  if wrong is None:
    return 'good start'
  return f'{wrong[0].replace("_", " ")} {wrong[1]:g}'


def _draw_curves(
  axis: axes.Axes, cells: Mapping[str, Cell], column: str
) -> None:
  for index, method in enumerate(bad_starts.METHODS):
    if method not in cells:
      continue
    curves = [_curve(run, column) for run in cells[method].runs]
    x, mean, low, high = plot.mean_and_range(curves)
    color = figure_style.COLORS[index]
    axis.plot(x, mean, color=color, label=_METHOD_NAMES[method])
    axis.fill_between(x, low, high, color=color, alpha=0.2, lw=0)
  axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))


def _draw_meta_parameter(
  axis: axes.Axes, cells: Mapping[str, Cell], start: str
) -> None:
  wrong = bad_starts.STARTS[start]
  # At a good start, the one that says most of the agent's behaviour.
  name = 'entropy_weight' if wrong is None else wrong[0]
  _draw_curves(axis, cells, f'meta/{name}')
  good = bad_starts.get_config().meta.parameters[name].fixed
  axis.axhline(good, color='0.4', lw=1, ls=':')
  axis.set_ylabel(name.replace('_', ' '))
  axis.set_xlabel('emulator frames')
  if name == 'entropy_weight':
    axis.set_yscale('log')


def _curve(run: read.Run, column: str) -> tuple[np.ndarray, np.ndarray]:
  rows = _learner(run)
  known = rows[rows[column].notna()]
  return known['num_frames'].to_numpy(), known[column].to_numpy()


def _learner(run: read.Run) -> pd.DataFrame:
  if run.learner is None:
    raise read.RecordsError(f'{run.workdir!r} has no row of its learner yet')
  return run.learner


def print_table(rows: pd.DataFrame, console: Console) -> None:
  """Prints what `table` returns."""
  shown = Table(
    'game',
    'start',
    'method',
    'seeds',
    'return',
    '95 %',
    'logits',
    'recovers',
    box=None,
  )
  for row in rows.to_dict('records'):
    shown.add_row(
      *(str(row[name]) for name in ('game', 'start', 'method', 'seeds')),
      f'{row["mean"]:.1f}',
      f'{row["low"]:.1f} to {row["high"]:.1f}',
      f'{row["travel"]:+.2f}',
      {True: 'yes', False: 'no'}.get(row['recovers'], '-'),
    )
  console.print(shown)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m bmg.experiments.bad_starts',
    description='Says what meta-learning makes of wrong hyper-parameters.',
  )
  parser.add_argument('runs', nargs='+', help='folders of the study')
  parser.add_argument(
    '--out', default='bad_starts', help='folder for the table and the figure'
  )
  args = parser.parse_args(argv)
  try:
    cells = collect(args.runs)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = table(cells)
    rows.to_csv(out / 'bad_starts.csv', index=False, float_format='%.5g')
    draw(cells, out / 'bad_starts.png')
  except (read.RecordsError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print_table(rows, Console())
  print(f'Saved in {out}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
