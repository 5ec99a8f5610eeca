"""Compares the learners of a study: a table and a picture like the paper's.

Flennerhag et al. (2022), section 6: meta-test results are those of the best
meta-validation result; bands are standard deviations over seeds.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import axes, ticker
from matplotlib import figure as figure_lib

from bmg.configs.few_shot import schema
from bmg.evaluation import figure_style
from bmg.experiments.few_shot import training

SUMMARY, PICTURE = 'summary.csv', 'curves.png'
# MAML is black.
_COLORS = ('#000000', *figure_style.COLORS)


class Curves(NamedTuple):
  """The evaluations of one learner, of S seeds at E meta-steps."""

  # int [E], and float [S, E] each.
  meta_step: np.ndarray
  seconds: np.ndarray
  validation: np.ndarray
  test: np.ndarray


class Results(NamedTuple):
  """What can be compared."""

  curves: Mapping[str, Curves]
  # Learners that have not finished all their seeds.
  unfinished: Sequence[str]


def load(study: schema.Study, workdir: str) -> Results:
  """Reads what the learners of a study have recorded in `workdir`."""
  curves, unfinished = {}, []
  for name in study.learners:
    runs = [
      _read(training.seed_folder(workdir, name, seed))
      for seed in training.seeds(study)
    ]
    finished = [
      rows
      for rows in runs
      if rows is not None
      and rows['meta_step'].max(initial=-1) == study.num_meta_steps
    ]
    if len(finished) < study.num_seeds:
      unfinished.append(name)
      continue
    stack = lambda column, finished=finished: np.stack(
      [rows[column] for rows in finished]
    )
    curves[name] = Curves(
      finished[0]['meta_step'],
      *(stack(column) for column in ('seconds', 'validation', 'test')),
    )
  return Results(curves, unfinished)


def summarize(
  study: schema.Study, curves: Mapping[str, Curves]
) -> pd.DataFrame:
  """Returns one row per learner; docs/few_shot.md explains the columns."""
  sign = _sign(study)
  rows = []
  for name, curve in curves.items():
    config = study.learners[name]
    best = np.argmax(sign * curve.validation, axis=1)[:, None]
    tests = np.take_along_axis(curve.test, best, axis=1)[:, 0]
    validations = np.take_along_axis(curve.validation, best, axis=1)[:, 0]
    row = {
      'learner': name,
      'kind': config.kind,
      'K': config.inner_updates,
      'L': config.bootstrap_length if config.kind == 'bmg' else 0,
      'num_seeds': len(tests),
      'test_mean': tests.mean(),
      'test_sd': _deviation(tests),
      'validation_mean': validations.mean(),
      'ms_per_meta_step': 1e3
      * curve.seconds[:, -1].mean()
      / curve.meta_step[-1],
    }
    rows.append(row | _against_reference(study, curves, name))
  table = pd.DataFrame(rows)
  groups = (sign * table['validation_mean']).groupby(
    [table['kind'], table['K']]
  )
  table['best_of_kind_and_K'] = (
    groups.rank(ascending=False, method='first') == 1
  )
  return table


def reference(
  study: schema.Study, curves: Mapping[str, Curves], name: str
) -> str | None:
  """The learner to compare `name` with: full MAML of the same K, if any."""
  for other in curves:
    config = study.learners[other]
    if (
      config.kind == 'maml'
      and not config.first_order
      and not config.anil
      and config.inner_updates == study.learners[name].inner_updates
    ):
      return other
  return None


def write(study: schema.Study, workdir: str) -> str:
  """Writes table and picture into `workdir`; returns the table as text."""
  results = load(study, workdir)
  left_out = f'unfinished, left out: {", ".join(results.unfinished)}'
  if not results.curves:
    return left_out
  table = summarize(study, results.curves)
  folder = pathlib.Path(workdir)
  table.to_csv(folder / SUMMARY, index=False)
  draw(study, results.curves, table, str(folder / PICTURE))
  text = table.to_string(index=False, float_format='{:.4g}'.format, na_rep='-')
  if results.unfinished:
    text += f'\n{left_out}'
  return f'{text}\n{folder / SUMMARY}\n{folder / PICTURE}'


def draw(
  study: schema.Study,
  curves: Mapping[str, Curves],
  table: pd.DataFrame,
  out: str,
) -> None:
  """Draws meta-validation by meta-step and by second, and the best per K."""
  # Without pyplot: no display, and no global state.
  figure = figure_lib.Figure(figsize=(13.2, 4.6), layout='constrained')
  metric = training.metric_name(study)
  with matplotlib.rc_context(figure_style.STYLE):
    by_step, by_second, by_k = figure.subplots(1, 3)
    for name, curve in curves.items():
      style = _style(study, name)
      _draw_curve(by_step, curve.meta_step, curve.validation, name, style)
      seconds = curve.seconds.mean(axis=0)
      _draw_curve(by_second, seconds, curve.validation, name, style)
    for axis, label in (
      (by_step, 'meta-steps'),
      (by_second, 'seconds of meta-training'),
    ):
      axis.set_xlabel(label)
      axis.set_title(f'meta-validation: {metric}')
      axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))
    _draw_best(by_k, table)
    by_k.set_title(f'meta-test: {metric}, best per K')
    handles, labels = by_step.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=8)
    figure.savefig(out, dpi=150)


def _read(folder: pathlib.Path) -> dict[str, np.ndarray] | None:
  try:
    rows = pd.read_csv(folder / 'evaluation.csv')
  except FileNotFoundError:
    return None
  return {name: rows[name].to_numpy() for name in training.COLUMNS}


def _sign(study: schema.Study) -> int:
  return -1 if training.metric_name(study) == 'MSE' else 1


def _deviation(values: np.ndarray, axis: int = 0) -> Any:
  """The standard deviation over seeds; NaN for a single one."""
  if values.shape[axis] == 1:
    return np.nan * values.mean(axis=axis)
  return values.std(axis=axis, ddof=1)


def _against_reference(
  study: schema.Study, curves: Mapping[str, Curves], name: str
) -> dict[str, float]:
  """When the mean curve first reaches the last value of the reference's."""
  nothing = dict.fromkeys(
    (
      'level',
      'meta_steps_to_level',
      'seconds_to_level',
      'meta_steps_ratio',
      'seconds_ratio',
    ),
    np.nan,
  )
  other = reference(study, curves, name)
  if other is None:
    return nothing
  level = float(curves[other].validation.mean(axis=0)[-1])
  meta_steps, seconds = _time_to(curves[name], level, _sign(study))
  steps_0, seconds_0 = _time_to(curves[other], level, _sign(study))
  return nothing | {
    'level': level,
    'meta_steps_to_level': meta_steps,
    'seconds_to_level': seconds,
    'meta_steps_ratio': meta_steps / steps_0 if steps_0 else np.nan,
    'seconds_ratio': seconds / seconds_0 if seconds_0 else np.nan,
  }


def _time_to(curve: Curves, level: float, sign: int) -> tuple[float, float]:
  """Meta-steps and seconds at the first evaluation at `level`, or NaN."""
  reached = sign * curve.validation.mean(axis=0) >= sign * level
  if not reached.any():
    return np.nan, np.nan
  first = int(np.argmax(reached))
  return float(curve.meta_step[first]), float(curve.seconds[:, first].mean())


def _style(study: schema.Study, name: str) -> dict[str, Any]:
  """A colour for everything but K, a line style for K."""
  config = study.learners[name]
  others = [
    dataclasses.replace(learner, inner_updates=1)
    for learner in study.learners.values()
  ]
  variants = list(dict.fromkeys(others))
  lengths = sorted({each.inner_updates for each in study.learners.values()})
  variant = variants.index(dataclasses.replace(config, inner_updates=1))
  return {
    'color': _COLORS[variant % len(_COLORS)],
    'linestyle': figure_style.LINE_STYLES[
      lengths.index(config.inner_updates) % len(figure_style.LINE_STYLES)
    ],
  }


def _draw_curve(
  axis: axes.Axes,
  xs: np.ndarray,
  values: np.ndarray,
  name: str,
  style: Mapping[str, Any],
) -> None:
  mean, deviation = values.mean(axis=0), _deviation(values)
  axis.plot(xs, mean, label=name, **style)
  axis.fill_between(
    xs,
    mean - deviation,
    mean + deviation,
    color=style['color'],
    alpha=0.15,
    lw=0,
  )


def _draw_best(axis: axes.Axes, table: pd.DataFrame) -> None:
  """Bars of the chosen learners, by K."""
  chosen = table[table['best_of_kind_and_K']]
  lengths = sorted(chosen['K'].unique())
  for index, (_, rows) in enumerate(chosen.groupby('kind', sort=False)):
    positions = [lengths.index(K) + 0.4 * index for K in rows['K']]
    axis.bar(
      positions,
      rows['test_mean'],
      yerr=rows['test_sd'].fillna(0.0),
      width=0.36,
      color=_COLORS[index],
      ecolor='#888888',
    )
    for position, row in zip(positions, rows.itertuples(), strict=True):
      axis.annotate(
        str(row.learner),
        (position, 0),
        rotation=90,
        ha='center',
        va='bottom',
        color='white',
        xytext=(0, 4),
        textcoords='offset points',
        size=8,
      )
  axis.set_xticks(
    [place + 0.2 for place in range(len(lengths))],
    [f'K = {K}' for K in lengths],
  )
