import json
import math

import numpy as np
import pytest

from bmg.configs import schema
from bmg.learner import progress
from tests.learner import fakes


class _Clock:
  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


_SIZES = {'online': 3, 'replay': 40}


def _config(num_frames=100_000) -> schema.Config:
  # 2 unrolls of 5 steps of 4 frames: 40 frames per update.
  return fakes.tiny_config(num_frames=num_frames, actors={'unroll_length': 5})


def _statistics(returns=(), versions=(0, 0), waits=(0.0, 0.0)):
  returns = np.array(returns, np.float32)
  return progress.BatchStatistics(
    returns, returns * 10, np.array(versions), np.array(waits, np.float32)
  )


def test_batch_statistics_pick_the_games_that_ended():
  reader = fakes.FakeReader(fakes.tiny_config())
  statistics = progress.batch_statistics(reader.online(4, None, lambda: None))
  np.testing.assert_array_equal(statistics.episode_returns, [1, 3])
  np.testing.assert_array_equal(statistics.episode_lengths, [10, 30])
  np.testing.assert_array_equal(statistics.params_versions, [0] * 4)
  np.testing.assert_array_equal(statistics.insert_waits, [0.25] * 4)


def test_rates_over_the_short_and_the_long_window():
  clock = _Clock()
  counts = progress.Progress(_config(), clock=clock)
  rows = []
  # Ten rows 10 s apart, of 1, 2, 3, ... updates of 40 frames.
  for num_updates in range(1, 11):
    for _ in range(num_updates):
      counts.add_step(_statistics(), waited_s=0.5)
    clock.now += 10
    rows.append(counts.row(_SIZES))
  last = rows[-1]
  assert last['num_updates'] == 55
  assert last['num_frames'] == 2200
  assert last['seconds'] == pytest.approx(100)
  assert last['frames_per_second'] == pytest.approx(10 * 40 / 10)
  # The last 60 s had the updates 5 + 6 + 7 + 8 + 9 + 10.
  assert last['frames_per_second_long'] == pytest.approx(45 * 40 / 60)
  assert last['time_left'] == pytest.approx((100_000 - 2200) / 30)
  assert last['wait_data'] == pytest.approx(10 * 0.5 / 10)
  assert rows[0]['frames_per_second_long'] == pytest.approx(4)
  assert (last['replay_online'], last['replay_size']) == (3, 40)


def test_lag_and_waits_are_those_since_the_last_row():
  counts = progress.Progress(_config())
  counts.add_step(_statistics(versions=(0, 0)), 0.0)
  counts.add_step(_statistics(versions=(0, 1), waits=(0.5, 1.0)), 0.0)
  row = counts.row(_SIZES)
  assert row['policy_lag_mean'] == pytest.approx(1 / 4)
  assert row['policy_lag_max'] == 1
  assert row['wait_insert'] == pytest.approx(1.5 / 4)
  # A version from before a restart of the learner is no negative lag.
  counts.add_step(_statistics(versions=(0, 99)), 0.0)
  row = counts.row(_SIZES)
  assert row['policy_lag_mean'] == 1
  assert row['policy_lag_max'] == 2
  assert row['wait_insert'] == 0


def test_returns_are_a_mean_over_the_last_hundred_games():
  counts = progress.Progress(_config())
  assert math.isnan(counts.mean_return)
  assert math.isnan(counts.row(_SIZES)['episode_return'])
  counts.add_step(_statistics(returns=range(150)), 0.0)
  row = counts.row(_SIZES)
  assert row['episodes'] == 150
  assert row['episode_return'] == np.mean(np.arange(50, 150))
  assert row['episode_length'] == 10 * row['episode_return']


def test_counters_survive_a_stop():
  clock = _Clock()
  counts = progress.Progress(_config(num_frames=120), clock=clock)
  counts.add_step(_statistics(returns=[1.5, 2.5]), 0.0)
  clock.now += 7
  saved = json.loads(json.dumps(counts.to_dict()))
  clock.now += 1000
  counts = progress.Progress(_config(num_frames=120), saved, clock)
  assert not counts.finished
  counts.add_step(_statistics(returns=[5.0]), 0.0)
  clock.now += 4
  row = counts.row(_SIZES)
  assert row['num_frames'] == 80
  assert row['num_updates'] == 2
  assert row['seconds'] == pytest.approx(11)
  # Frames of the session before were not played in this one.
  assert row['frames_per_second'] == pytest.approx(10)
  assert row['frames_per_second_long'] == pytest.approx(10)
  assert row['episode_return'] == 3.0
  assert row['episodes'] == 3
  counts.add_step(_statistics(), 0.0)
  assert counts.finished


def test_a_timer_is_due_once_per_period():
  clock = _Clock()
  timer = progress.PeriodicTimer(5.0, clock)
  assert not timer.due()
  clock.now += 5
  assert timer.due()
  assert not timer.due()
  clock.now += 4
  assert not timer.due()
