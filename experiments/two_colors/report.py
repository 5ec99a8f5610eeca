"""What a two-colors study has found: a table as CSV and text, and figures."""

import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy import stats

from bmg.configs.two_colors import schema
from bmg.experiments.two_colors import agent as agent_lib
from bmg.experiments.two_colors import figures

# Total return of 10 M steps, in millions: mean and standard deviation of ten
# seeds. Luketina et al. (2022), table 1; its items respawn otherwise, and it
# has each agent with its best settings.
PUBLISHED: Mapping[str, tuple[float, float]] = {
  'ac_fixed': (1.24, 0.09),
  'ac_mg': (1.29, 0.08),
  'ac_bmg': (1.32, 0.08),
  'ac_mg_reward': (1.58, 0.06),
  'ac_bmg_reward': (1.74, 0.03),
  'q_fixed': (0.58, 0.07),
  'q_bmg': (1.78, 0.03),
  'q_bmg_reward': (1.93, 0.03),
}
# What `merge` puts together.
SEEDS_FILE = 'seeds.csv'
# Around a switch, hyper-parameters are compared over so many steps.
_AROUND_STEPS = 5_000
_MILLION = 1e6


class Interval(NamedTuple):
  """A mean over seeds, its standard deviation, and 95 % limits of the mean."""

  mean: float
  deviation: float
  low: float
  high: float


def interval(values: np.ndarray) -> Interval:
  """Returns Student's interval of the mean; NaN limits for a single value."""
  mean = float(np.mean(values))
  if len(values) < 2:
    return Interval(mean, math.nan, math.nan, math.nan)
  deviation = float(np.std(values, ddof=1))
  half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation
  half /= math.sqrt(len(values))
  return Interval(mean, deviation, mean - half, mean + half)


def total_returns(records: pd.DataFrame) -> np.ndarray:
  """Returns the sum of all rewards of each seed, [seeds]."""
  steps_per_row = records['num_steps'].min()
  sums = records.groupby('seed')[agent_lib.REWARD].sum()
  return sums.to_numpy(np.float64) * steps_per_row


def around_switches(
  records: pd.DataFrame, column: str, switch_interval: int
) -> tuple[np.ndarray, np.ndarray]:
  """Compares `column` just after switches with just before the next ones.

  Args:
    records: of all seeds.
    column: of a hyper-parameter.
    switch_interval: steps.

  Returns:
    Means over the 5,000 steps after each switch and before the next, [seeds].
    NaN without a whole interval after a switch.
  """
  steps_per_row = records['num_steps'].min()
  begin = records['num_steps'] - steps_per_row
  phase = begin % switch_interval
  last = records['num_steps'].max()
  # Nothing has been learned before the first switch, and the last interval may
  # have no end.
  counts = (begin >= switch_interval) & (
    begin // switch_interval < last // switch_interval
  )
  after = counts & (phase + steps_per_row <= _AROUND_STEPS)
  # Rows that the next switch cuts in two belong to neither.
  before = (
    counts
    & (phase >= switch_interval - _AROUND_STEPS)
    & (phase + steps_per_row <= switch_interval)
  )

  def means(rows: pd.Series) -> np.ndarray:
    by_seed = records[rows].groupby('seed')[column].mean()
    return by_seed.reindex(records['seed'].unique()).to_numpy(np.float64)

  return means(after), means(before)


def per_seed(
  study: schema.Study, records: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
  """Returns one row per agent and seed.

  Args:
    study: the agents' configurations.
    records: of those that have run, by name.
  """
  parts = []
  for name, frame in records.items():
    agent = study.agents[name]
    after, before = around_switches(
      frame, hyper_parameter(agent), study.env.switch_interval
    )
    part = {
      'agent': name,
      'mode': agent.meta.mode,
      'K': agent.meta.inner_updates,
      'L': agent.meta.bootstrap_length,
      'context': '+'.join(agent.meta.context.inputs),
      'seed': np.sort(frame['seed'].unique()),
      'num_steps': frame['num_steps'].max(),
      'return': total_returns(frame) / _MILLION,
      'hyper_after_switch': after,
      'hyper_before_switch': before,
    }
    parts.append(pd.DataFrame(part))
  return pd.concat(parts, ignore_index=True)


def summarize(seeds: pd.DataFrame) -> pd.DataFrame:
  """Returns one row per agent.

  Args:
    seeds: as from `per_seed`.
  """
  rows = []
  keys = ['agent', 'mode', 'K', 'L', 'context', 'num_steps']
  for values, group in seeds.groupby(keys, sort=False):
    row = dict(zip(keys, values, strict=True))
    total = interval(group['return'].to_numpy())
    published, published_sd = PUBLISHED.get(
      str(row['agent']), (math.nan, math.nan)
    )
    after, before = group['hyper_after_switch'], group['hyper_before_switch']
    rows.append(
      {
        **row,
        'seeds': len(group),
        'return_mean': total.mean,
        'return_sd': total.deviation,
        'return_low': total.low,
        'return_high': total.high,
        'published_mean': published,
        'published_sd': published_sd,
        'hyper_after_switch': after.mean(),
        'hyper_before_switch': before.mean(),
        'seeds_rising': int((after > before).sum()),
      }
    )
  return pd.DataFrame(rows)


def hyper_parameter(agent: schema.Agent) -> str:
  """The column of what is meta-learned."""
  return 'entropy_weight' if agent.kind == 'actor_critic' else 'epsilon'


def write(
  study: schema.Study, paths: Mapping[str, pathlib.Path], workdir: str
) -> None:
  """Prints the table, and writes it and the figures to the study's folder.

  Args:
    study: the agents and their world.
    paths: records of those that have run, by name.
    workdir: gets seeds.csv, report.csv, returns.png and switches.png.
  """
  records = {name: pd.read_csv(path) for name, path in paths.items()}
  write_returns(per_seed(study, records), workdir)
  figures.draw_switches(
    {
      name: (frame, hyper_parameter(study.agents[name]))
      for name, frame in records.items()
    },
    study.env.switch_interval,
    pathlib.Path(workdir, 'switches.png'),
  )
  print(f'In {workdir}: {SEEDS_FILE}, report.csv, returns.png, switches.png')


def write_returns(seeds: pd.DataFrame, workdir: str) -> None:
  """Prints the table, and writes what it is made of.

  Args:
    seeds: as from `per_seed`.
    workdir: gets seeds.csv, report.csv and returns.png.
  """
  summary = summarize(seeds)
  folder = pathlib.Path(workdir)
  seeds.to_csv(folder / SEEDS_FILE, index=False, float_format='%.6g')
  summary.to_csv(folder / 'report.csv', index=False, float_format='%.6g')
  figures.draw_returns(summary, folder / 'returns.png')
  _print(summary)


def _print(summary: pd.DataFrame) -> None:
  table = Table(title='Total return in millions, mean (sd) over seeds')
  titles = ('agent', 'M steps', 'seeds', 'return', '95 %')
  for title in (*titles, 'published (10 M)', 'after, before a switch'):
    table.add_column(title)
  columns = [summary[name] for name in summary.columns]
  for values in zip(*columns, strict=True):
    row = dict(zip(summary.columns, values, strict=True))
    published = ''
    if not math.isnan(row['published_mean']):
      published = f'{row["published_mean"]:.2f} ({row["published_sd"]:.2f})'
    table.add_row(
      row['agent'],
      f'{row["num_steps"] / _MILLION:.2f}',
      str(row['seeds']),
      f'{row["return_mean"]:.3f} ({row["return_sd"]:.3f})',
      f'{row["return_low"]:.3f} - {row["return_high"]:.3f}',
      published,
      f'{row["hyper_after_switch"]:.3f}, {row["hyper_before_switch"]:.3f}',
    )
  Console(width=120).print(table)
