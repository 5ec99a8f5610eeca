"""Figures of a two-colors study, like the paper's figures 2 and 3."""

import pathlib
from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import figure as figure_lib

from bmg.evaluation import figure_style

# (records, column of the hyper-parameter) by agent.
Records = Mapping[str, tuple[pd.DataFrame, str]]

_SMOOTH_STEPS = 50_000


def draw_returns(summary: pd.DataFrame, path: pathlib.Path) -> None:
  """Draws total returns with 95 % intervals, beside the published ones.

  Args:
    summary: as from `report.summarize`.
    path: of the picture.
  """
  with matplotlib.rc_context(figure_style.STYLE):
    figure = figure_lib.Figure(
      figsize=(6.4, 0.42 * len(summary) + 1.2), layout='constrained'
    )
    axis = figure.add_subplot()
    places = np.arange(len(summary))
    mean = summary['return_mean'].to_numpy()
    # A single seed has no interval.
    errors = np.nan_to_num(
      [mean - summary['return_low'], summary['return_high'] - mean]
    )
    axis.barh(
      places, mean, xerr=errors, color=figure_style.COLORS[0], label='here'
    )
    axis.plot(
      summary['published_mean'],
      places,
      'D',
      color=figure_style.COLORS[1],
      label='Luketina et al. (2022), 10 M steps',
    )
    axis.set_yticks(places, summary['agent'])
    axis.invert_yaxis()
    axis.set_xlabel('total return in millions, 95 % interval')
    figure.legend(loc='outside upper center', ncols=2)
    figure.savefig(path, dpi=150)


def draw_switches(
  records: Records, switch_interval: int, path: pathlib.Path
) -> None:
  """Draws reward and hyper-parameter, over the run and around a switch.

  Args:
    records: of all agents.
    switch_interval: steps.
    path: of the picture.
  """
  with matplotlib.rc_context(figure_style.STYLE):
    figure = figure_lib.Figure(figsize=(11.0, 7.0), layout='constrained')
    axes = figure.subplots(2, 2)
    for index, (name, (frame, hyper)) in enumerate(records.items()):
      style = figure_style.line(index)
      for row, column in enumerate(('reward', hyper)):
        means = frame.groupby('num_steps')[column].mean()
        period = means.index[0]
        width = max(1, round(_SMOOTH_STEPS / period))
        smooth = means.rolling(width, min_periods=1).mean()
        axes[row, 0].plot(smooth.index / 1e6, smooth, label=name, **style)
        steps, values = mean_interval(means, switch_interval)
        axes[row, 1].plot(steps / 1e3, values, label=name, **style)
    for row, label in enumerate(('reward per step', 'hyper-parameter')):
      axes[row, 0].set_ylabel(label)
    axes[1, 0].set_xlabel('steps in millions')
    axes[1, 1].set_xlabel('thousand steps since the switch, mean over switches')
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=4)
    figure.savefig(path, dpi=150)


def mean_interval(
  means: pd.Series, switch_interval: int
) -> tuple[np.ndarray, np.ndarray]:
  """Averages over all intervals between switches but the first.

  Args:
    means: of rows of the records, by the step that ends each.
    switch_interval: steps.

  Returns:
    The middles of at most a hundred equal parts of the interval, in steps since
    the switch, and the mean of each, [parts]. Rows that a switch cuts in two
    belong to none.
  """
  period = means.index[0]
  begin = means.index.to_numpy() - period
  phase = begin % switch_interval
  kept = (begin >= switch_interval) & (phase + period <= switch_interval)
  width = switch_interval / min(100, max(1, switch_interval // period))
  parts = (phase[kept] + period / 2) // width
  values = means[kept].groupby(parts).mean()
  return (values.index.to_numpy() + 0.5) * width, values.to_numpy()
