"""Draws the figures of a report as SVG for its page, in the page's colours.

Text and axes have the colour of the text around them, so that one picture does
for a light page, a dark one and paper.
"""

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import axes, ticker
from matplotlib import figure as figure_lib

from bmg.configs import schema
from bmg.evaluation import atari_scores, figure_style, plot
from bmg.evaluation.report import collect, scores

# Stands for the colour of the text around the figure.
_INK = '#010203'
_STYLE = {
  **figure_style.STYLE,
  'axes.edgecolor': _INK,
  'axes.labelcolor': _INK,
  'font.family': 'sans-serif',
  'font.size': 9,
  'grid.color': _INK,
  'grid.alpha': 0.15,
  'lines.linewidth': 1.6,
  # Text stays text: small, and in the page's font.
  'svg.fonttype': 'none',
  # Makes the picture the same each time.
  'svg.hashsalt': 'report',
  'text.color': _INK,
  'xtick.color': _INK,
  'ytick.color': _INK,
}
_NO_METADATA = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
_GRID_POINTS = 150
_PARAMETER_POINTS = 40
_HEAD_STYLES = ('-', '--', ':')
# Of the legend: one colour and kind of line per label.
Looks = Mapping[str, Mapping[str, Any]]
Curve = tuple[np.ndarray, np.ndarray]


def looks(labels: Sequence[str]) -> Looks:
  """Chooses how the curves of each label look."""
  return {label: figure_style.line(i) for i, label in enumerate(labels)}


def learning_curves(
  game: str, runs: Mapping[str, Sequence[collect.Run]], look: Looks, name: str
) -> str:
  """Draws the training return at one game: each seed, their mean and range.

  Args:
    game: a ROM name.
    runs: of that game, by label.
    look: of the labels.
    name: tells the figures of a page apart.

  Returns:
    SVG, or nothing if no game has ended yet.
  """
  figure = figure_lib.Figure(figsize=(3.7, 2.2))
  with matplotlib.rc_context(_STYLE):
    axis = figure.add_axes((0.15, 0.17, 0.81, 0.78))
    drawn = [
      _draw_seeds(axis, seeds, look[label]) for label, seeds in runs.items()
    ]
    if not any(drawn):
      return ''
    _human_line(axis, game)
    _axis_of_frames(axis)
    axis.yaxis.set_major_locator(ticker.MaxNLocator(5))
    axis.yaxis.set_major_formatter(_large_numbers())
    return _svg(figure, name)


def median_curves(
  runs: Sequence[collect.Run], look: Looks, name: str
) -> tuple[str, dict[str, int]]:
  """Draws the median over games of human-normalised training return.

  As the paper's main figure: the mean over seeds of the median over games, and
  their standard deviation. With unequal numbers of seeds there is no such
  deviation, and the median is of means over seeds. Only what all of a label's
  runs have come to is drawn.

  Returns:
    SVG, or nothing if there is nothing to draw, and each label's number of
    games.
  """
  figure = figure_lib.Figure(figsize=(7.2, 3.0))
  num_games: dict[str, int] = {}
  with matplotlib.rc_context(_STYLE):
    axis = figure.add_axes((0.09, 0.14, 0.88, 0.82))
    for label in dict.fromkeys(run.label for run in runs):
      curves = _normalized_curves([run for run in runs if run.label == label])
      found = _median_curve(curves)
      if found is None:
        continue
      num_games[label] = len(curves)
      x, median, deviation = found
      axis.plot(x, 100 * median, **look[label])
      axis.fill_between(
        x,
        100 * (median - deviation),
        100 * (median + deviation),
        color=look[label]['color'],
        alpha=0.2,
        lw=0,
      )
    if not num_games:
      return '', {}
    _axis_of_frames(axis)
    axis.yaxis.set_major_formatter(ticker.PercentFormatter())
    return _svg(figure, name), num_games


def meta_parameters(
  runs: Mapping[str, Sequence[collect.Run]],
  look: Looks,
  name: str,
  columns: int,
) -> str:
  """Draws each hyper-parameter, as the mean over the runs that got so far.

  The band goes from the lowest run to the highest, for the main head. Auxiliary
  heads are dashed and dotted.

  Args:
    runs: by label.
    look: of the labels.
    name: tells the figures of a page apart.
    columns: panels side by side, at most.

  Returns:
    SVG, or nothing if none was recorded.
  """
  found = {
    column
    for group in runs.values()
    for run in group
    for column in collect.meta_columns(run)
  }
  names = [
    spec.name
    for spec in dataclasses.fields(schema.MetaParameters)
    if f'meta/{spec.name}' in found
  ]
  if not names:
    return ''
  num_columns = min(columns, len(names))
  num_rows = -(-len(names) // num_columns)
  # Numbers on the axes may be long, and need their room.
  figure = figure_lib.Figure(
    figsize=(2.6 * num_columns, 1.8 * num_rows), layout='constrained'
  )
  with matplotlib.rc_context(_STYLE):
    for index, parameter in enumerate(names):
      axis = figure.add_subplot(num_rows, num_columns, index + 1)
      for label, group in runs.items():
        for head, line_style in enumerate(_HEAD_STYLES):
          column = f'meta/{parameter}' + (f'_aux{head}' if head else '')
          _draw_parameter(axis, group, column, line_style, look[label])
      axis.set_title(parameter.replace('_', ' '), fontsize=9)
      axis.yaxis.set_major_locator(ticker.MaxNLocator(4))
      axis.ticklabel_format(axis='y', useOffset=False)
      _axis_of_frames(axis)
    return _svg(figure, name)


def _draw_seeds(
  axis: axes.Axes, runs: Sequence[collect.Run], look: Mapping[str, Any]
) -> bool:
  curves = [
    _thin(curve)
    for run in runs
    if (curve := collect.series(run.learner, 'episode_return'))
  ]
  if not curves:
    return False
  if len(curves) > 1:
    for x, y in curves:
      axis.plot(x, y, **{**look, 'linewidth': 0.8, 'alpha': 0.7})
    # A seed that has just begun leaves nothing in common to average over.
    if max(x[0] for x, _ in curves) >= min(x[-1] for x, _ in curves):
      return True
  x, mean, lowest, highest = plot.mean_and_range(curves)
  x, mean, lowest, highest = (
    values[:: max(len(x) // _GRID_POINTS, 1)]
    for values in (x, mean, lowest, highest)
  )
  axis.plot(x, mean, **look)
  if len(curves) > 1:
    axis.fill_between(x, lowest, highest, color=look['color'], alpha=0.2, lw=0)
  return True


def _draw_parameter(
  axis: axes.Axes,
  runs: Sequence[collect.Run],
  column: str,
  line_style: str,
  look: Mapping[str, Any],
) -> None:
  curves = [
    curve for run in runs if (curve := collect.series(run.learner, column))
  ]
  if not curves:
    return
  start = min(x[0] for x, _ in curves)
  end = max(x[-1] for x, _ in curves)
  grid = np.linspace(start, end, _PARAMETER_POINTS if end > start else 1)
  values = np.stack(
    [np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in curves]
  )
  known = ~np.isnan(values).all(axis=0)
  grid, values = grid[known], values[:, known]
  color = look['color']
  axis.plot(grid, np.nanmean(values, axis=0), color=color, linestyle=line_style)
  if line_style == _HEAD_STYLES[0] and len(curves) > 1:
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    axis.fill_between(grid, low, high, color=color, alpha=0.15, lw=0)


def _normalized_curves(
  runs: Sequence[collect.Run],
) -> dict[str, list[Curve]]:
  """Human-normalised curves, a list of seeds by game."""
  curves: dict[str, list[Curve]] = {}
  for run in sorted(runs, key=lambda run: run.seed):
    found = collect.series(run.learner, 'episode_return')
    normalized = found and scores.human_normalized(run.game, found[1])
    if found and normalized is not None:
      curves.setdefault(run.game, []).append((found[0], normalized))
  return curves


def _median_curve(
  curves: Mapping[str, Sequence[Curve]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
  """Frames, median over games and its standard deviation over seeds, [n]."""
  seeds = [curve for group in curves.values() for curve in group]
  if not seeds:
    return None
  start = max(x[0] for x, _ in seeds)
  end = min(x[-1] for x, _ in seeds)
  if end <= start:
    return None
  grid = np.linspace(start, end, _GRID_POINTS)
  values = [
    np.stack([np.interp(grid, x, y) for x, y in group])
    for group in curves.values()
  ]
  if len({len(group) for group in values}) > 1:
    values = [group.mean(axis=0, keepdims=True) for group in values]
  medians = np.median(np.stack(values), axis=0)  # [seeds, n]
  return grid, medians.mean(axis=0), medians.std(axis=0)


def _human_line(axis: axes.Axes, game: str) -> None:
  """Marks a human's score, but stretches no axis for it."""
  reference = atari_scores.references().get(game)
  low, high = axis.get_ylim()
  if reference is not None and low <= reference.human <= high:
    axis.axhline(reference.human, color=_INK, ls=(0, (1, 2)), lw=1.0)


def _axis_of_frames(axis: axes.Axes) -> None:
  axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
  axis.xaxis.set_major_formatter(_large_numbers())


def _large_numbers() -> ticker.EngFormatter:
  """Writes 2M rather than 2000000, but 0.9 rather than 900m."""
  formatter = ticker.EngFormatter(sep='')
  formatter.ENG_PREFIXES = {0: '', 3: 'k', 6: 'M', 9: 'G'}
  return formatter


def _thin(curve: Curve) -> Curve:
  """Averages neighbours: a run of a day has 17,000 rows."""
  x, y = curve
  size = len(x) // _GRID_POINTS
  if size < 2:
    return curve
  whole = len(x) // size * size
  mean = lambda values: values[:whole].reshape(-1, size).mean(axis=1)
  # The last point keeps its place, so that the end is not cut off.
  return np.append(mean(x), x[-1]), np.append(mean(y), y[-1])


def _svg(figure: figure_lib.Figure, name: str) -> str:
  """Saves as SVG that fits into a page: no prolog, and no name twice."""
  text = io.StringIO()
  figure.savefig(text, format='svg', transparent=True, metadata=_NO_METADATA)
  svg = text.getvalue()
  svg = svg[svg.index('<svg') :].strip().replace(_INK, 'currentColor')
  svg = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', _open_tag, svg, count=1)
  svg = re.sub(r' d="[^"]*"', _shorten, svg)
  svg = re.sub(r'>\s+<', '><', svg)
  # Only what is referred to needs a name.
  used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
  svg = re.sub(
    r' id="([^"]*)"',
    lambda match: f' id="{name}-{match[1]}"' if match[1] in used else '',
    svg,
  )
  return re.sub(r'(href="|url\()#', rf'\1#{name}-', svg)


def _shorten(path: re.Match[str]) -> str:
  """A tenth of a point is as fine as a screen, at a third of the size."""
  short = re.sub(r'-?\d+\.\d+', lambda n: f'{float(n[0]):.1f}', path[0])
  return re.sub(r'\s*\n(L )?', lambda n: 'L' if n[1] else ' ', short)


def _open_tag(match: re.Match[str]) -> str:
  return (
    '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
    f'xmlns:xlink="http://www.w3.org/1999/xlink" {match[1]}>'
  )
