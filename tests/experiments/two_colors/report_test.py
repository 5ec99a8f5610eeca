import math

import numpy as np
import pandas as pd
import pytest

from bmg.configs.two_colors import base, schema
from bmg.experiments.two_colors import figures, report


def _records(num_seeds=2, num_rows=40, steps_per_row=1_000):
  """Rewards of 0.1 (seed 0), 0.2; epsilon falls from each switch at 10,000."""
  rows = [
    {
      'num_steps': (row + 1) * steps_per_row,
      'seed': seed,
      'reward': 0.1 * (seed + 1),
      'entropy_weight': 1.0 - 0.1 * (row % 10) + seed,
    }
    for row in range(num_rows)
    for seed in range(num_seeds)
  ]
  return pd.DataFrame(rows)


def test_total_return_of_each_seed():
  np.testing.assert_allclose(report.total_returns(_records()), [4_000, 8_000])


def test_interval_is_students():
  interval = report.interval(np.array([1.0, 2.0, 3.0, 4.0]))
  assert interval.mean == 2.5
  assert interval.deviation == pytest.approx(1.2909944)
  # 3.182446 is the 97.5 % quantile for 3 degrees of freedom.
  assert interval.high - interval.mean == pytest.approx(
    3.182446 * 1.2909944 / 2
  )
  assert interval.low == pytest.approx(5.0 - interval.high)
  assert math.isnan(report.interval(np.array([1.0])).low)


def test_around_switches():
  after, before = report.around_switches(_records(), 'entropy_weight', 10_000)
  # Rows 0 to 4 and 5 to 9 of each interval, but for the first.
  np.testing.assert_allclose(after, [0.8, 1.8])
  np.testing.assert_allclose(before, [0.3, 1.3])


def test_rows_that_a_switch_cuts_do_not_count():
  records = _records(num_rows=30, steps_per_row=3_000)
  begin = records['num_steps'] - 3_000
  cut = begin // 10_000 != (records['num_steps'] - 1) // 10_000
  assert cut.any()
  records['entropy_weight'] = np.where(cut, 100.0, 0.5)
  after, before = report.around_switches(records, 'entropy_weight', 10_000)
  np.testing.assert_allclose(after, [0.5, 0.5])
  np.testing.assert_allclose(before, [0.5, 0.5])


def test_figure_leaves_out_the_first_interval_and_rows_cut_by_a_switch():
  steps = np.arange(300, 4_001, 300)
  begin = steps - 300
  cut = begin // 1_000 != (steps - 1) // 1_000
  assert cut.any()
  # Of each row, how long after the switch it begins.
  values = np.where(cut | (begin < 1_000), 1e6, begin % 1_000)
  middles, means = figures.mean_interval(pd.Series(values, steps), 1_000)
  np.testing.assert_allclose(middles, [1_000 / 6, 500, 5_000 / 6])
  # Three parts, of the rows whose middle is 150 later and lies in them.
  np.testing.assert_allclose(
    means, [np.mean([100, 0]), np.mean([200, 500, 400, 300]), 650]
  )


def test_unfinished_interval_does_not_count():
  records = _records(num_rows=28)
  after, _ = report.around_switches(records, 'entropy_weight', 10_000)
  # Only that from 10,000 to 20,000 is whole; its rows are as all others.
  np.testing.assert_allclose(after, [0.8, 1.8])
  late = records['num_steps'] > 20_000
  records.loc[late, 'entropy_weight'] = 100.0
  after, _ = report.around_switches(records, 'entropy_weight', 10_000)
  np.testing.assert_allclose(after, [0.8, 1.8])
  nothing, _ = report.around_switches(records, 'entropy_weight', 50_000)
  assert np.isnan(nothing).all()


def test_report_names_agents_and_published_numbers(tmp_path, capsys):
  study = base.get_study()
  study.env.switch_interval = 10_000
  study.agents.ac_bmg_reward = base.with_context(
    base.bootstrapped(base.actor_critic(), 1, 16), 'reward'
  )
  study = schema.from_config_dict(study)
  _records().to_csv(tmp_path / 'ac_bmg_reward.csv', index=False)
  report.write(
    study, {'ac_bmg_reward': tmp_path / 'ac_bmg_reward.csv'}, str(tmp_path)
  )
  row = pd.read_csv(tmp_path / 'report.csv').iloc[0]
  assert (row['agent'], row['K'], row['L']) == ('ac_bmg_reward', 1, 16)
  assert row['context'] == 'reward'
  assert row['return_mean'] == pytest.approx(0.006)
  assert row['published_mean'] == 1.74
  assert row['hyper_after_switch'] > row['hyper_before_switch']
  assert row['seeds_rising'] == 2
  for picture in ('returns.png', 'switches.png'):
    assert (tmp_path / picture).read_bytes().startswith(b'\x89PNG')
  assert '1.74 (0.03)' in capsys.readouterr().out
