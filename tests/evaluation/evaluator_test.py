"""Scores of full games, and when the evaluator takes them."""

import csv
import threading

import numpy as np
import pytest

from bmg.actors import environment
from bmg.agents import networks
from bmg.configs import schema
from bmg.evaluation import evaluator
from tests.actors import fakes

_NEVER = threading.Event()


class _UnevenGames:
  """Two games at a time: one ends at every step, one at every tenth."""

  num_actions = 2

  def __init__(self, config, num_envs, num_threads, seeds):
    del num_threads, seeds
    assert num_envs <= 2
    self._shape = (num_envs, *config.frame_shape)
    self._periods = np.where(np.arange(num_envs) == 0, 1, 10)
    self._t = 0
    self.no_ops = np.zeros(num_envs, np.int32)

  def reset(self):
    return self._result(np.ones(self._shape[0], np.bool_))

  def step(self, actions):
    del actions
    self._t += 1
    return self._result(self._t % self._periods == 0)

  def close(self):
    pass

  def _result(self, ended):
    values = np.where(ended, self._periods, np.nan).astype(np.float32)
    zeros = np.zeros(len(ended), np.float32)
    return environment.StepResult(
      np.zeros(self._shape, np.uint8), ended, zeros, zeros, values, 4 * values
    )


def play(config, num_episodes=2, num_envs=2, seed=0, greedy=False, **kwargs):
  return evaluator.play_episodes(
    config,
    kwargs.get('params') or fakes.make_params(config, 6),
    num_episodes,
    num_envs,
    seed,
    greedy,
    kwargs.get('stop', _NEVER),
    kwargs.get('heartbeat', fakes.nothing),
  )


def test_short_games_are_not_favoured(monkeypatch):
  params = fakes.make_params(fakes.make_config(), 6)
  monkeypatch.setattr(environment, 'AtariEnvironment', _UnevenGames)
  monkeypatch.setattr(
    networks, 'make_network', fakes.constant_network(lambda _: None)
  )
  results = play(fakes.make_config(), 5, num_envs=2, params=params)
  # Three games of the first environment, two of the second.
  assert results.returns.tolist() == [1, 1, 1, 10, 10]
  assert results.lengths.tolist() == [4, 4, 4, 40, 40]
  # No more environments than games.
  results = play(fakes.make_config(), 2, num_envs=3, params=params)
  assert results.returns.tolist() == [1, 10]


def test_returns_are_those_of_the_games():
  config = fakes.make_config(
    fakes.make_env_config(game='boxing', max_episode_frames=800)
  )
  params = fakes.make_params(config, environment.num_actions(config.env))
  results = play(config, num_episodes=3, num_envs=2, params=params)
  assert results.returns.dtype == np.float32
  assert results.lengths.tolist() == [800, 800, 800]
  game = results.first_game
  games = environment.AtariEnvironment(config.env, 1, 1, np.array([game.seed]))
  games.reset()
  assert games.no_ops[0] == game.no_ops
  steps = [games.step(game.actions[t : t + 1]) for t in range(200)]
  games.close()
  assert len(game.actions) == 200
  assert steps[-1].episode_returns[0] == results.returns[0]
  assert game.episode_return == results.returns[0]
  assert any(step.rewards[0] != 0 for step in steps)


def test_seed_decides_the_games():
  config = fakes.make_config(fakes.make_env_config(max_episode_frames=200))
  first, again, other = (play(config, 1, 1, seed) for seed in (1, 1, 2))
  assert first.first_game.seed != other.first_game.seed
  np.testing.assert_array_equal(
    first.first_game.actions, again.first_game.actions
  )
  assert (first.first_game.actions != other.first_game.actions).any()


def test_greedy_takes_the_most_likely_action():
  config = fakes.make_config(fakes.make_env_config(max_episode_frames=200))
  params = fakes.make_params(config, 6)
  for module, leaves in params.items():
    if 'policy' in module:
      leaves['w'] = np.zeros_like(leaves['w'])
      leaves['b'] = np.array([0, 0, 0, 0.5, 0, 0], np.float32)
  greedy = play(config, 1, 1, greedy=True, params=params)
  assert set(greedy.first_game.actions) == {3}
  sampled = play(config, 1, 1, greedy=False, params=params)
  assert set(sampled.first_game.actions) == set(range(6))


def test_a_stop_abandons_the_games():
  stop = threading.Event()
  beats = []

  def heartbeat():
    beats.append(1)
    if len(beats) == 5:
      stop.set()

  assert play(fakes.make_config(), stop=stop, heartbeat=heartbeat) is None
  assert len(beats) == 5


def make_run_config():
  return fakes.make_config(
    fakes.make_env_config(max_episode_frames=20),
    num_frames=10_000,
    evaluator=schema.Evaluator(num_episodes=2, num_envs=2, period_frames=1000),
  )


class _Learner:
  """Moves on to the next of its frame counts once one has been served."""

  def __init__(self, config, num_frames, stop=None):
    self._params = fakes.make_params(config, 6)
    self._num_frames = list(num_frames)
    self._stop = stop

  def get_parameters(self, unless_version):
    del unless_version
    if len(self._num_frames) == 1 and self._stop:
      self._stop.set()
    num_frames = self._num_frames.pop(0)
    if not self._num_frames:
      self._num_frames = [num_frames]
    return num_frames // 100, num_frames, self._params


def evaluate(workdir, num_frames, config=None, incarnation=0):
  """Runs the evaluator to its end; returns the rows of its CSV."""
  config = config or make_run_config()
  stop = threading.Event()
  finishes = num_frames[-1] >= config.num_frames
  learner = _Learner(config, num_frames, None if finishes else stop)
  evaluator.run_evaluator(
    config, str(workdir), incarnation, learner, stop, fakes.nothing
  )
  assert stop.is_set() != finishes
  with open(workdir / 'evaluation.csv', newline='') as file:
    return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _poll_fast(monkeypatch):
  monkeypatch.setattr(evaluator, '_POLL_PERIOD_S', 0.1)


def frames_of(rows):
  return [int(row['num_frames']) for row in rows]


def test_evaluates_first_periodically_and_last(tmp_path):
  rows = evaluate(tmp_path, [0, 500, 999, 1000, 1900, 3500, 9990, 10_000])
  assert frames_of(rows) == [0, 1000, 3500, 9990, 10_000]
  row = rows[1]
  assert row['params_version'] == '10'
  assert row['num_episodes'] == '2'
  assert float(row['mean_length']) == 20
  assert float(row['seconds']) > 0
  mean = float(row['mean_return'])
  assert float(row['min_return']) <= mean <= float(row['max_return'])
  expected = (mean + 20.7) / (14.6 + 20.7)
  assert float(row['human_normalized_score']) == pytest.approx(expected)


@pytest.fixture
def _instant_games(monkeypatch):
  """For tests of when, not of what, is evaluated."""
  game = evaluator.Game(0, 0, np.zeros(1, np.int32), 1.0)
  scores = np.ones(2, np.float32)
  results = evaluator.EpisodeResults(scores, scores, game)
  monkeypatch.setattr(evaluator, 'play_episodes', lambda *_: results)


@pytest.mark.usefixtures('_instant_games')
def test_a_restarted_evaluator_goes_on_without_gap_or_repeat(tmp_path):
  evaluate(tmp_path, [0, 1000, 1100])
  rows = evaluate(tmp_path, [1500, 1999, 2000, 10_500], incarnation=1)
  assert frames_of(rows) == [0, 1000, 2000, 10_500]
  # Nothing is left to do.
  assert frames_of(evaluate(tmp_path, [10_500])) == [0, 1000, 2000, 10_500]


@pytest.mark.usefixtures('_instant_games')
def test_rows_of_a_future_that_the_learner_lost_are_dropped(tmp_path):
  rows = evaluate(tmp_path, [0, 1000, 2000, 3000, 1500, 2100, 10_000])
  assert frames_of(rows) == [0, 1000, 2100, 10_000]
  rows = evaluate(tmp_path, [1200, 2050, 10_000], incarnation=1)
  assert frames_of(rows) == [0, 1000, 2050, 10_000]


def test_a_stop_ends_the_wait_for_the_first_parameters(tmp_path):
  stop = threading.Event()
  stop.set()
  evaluator.run_evaluator(
    make_run_config(),
    str(tmp_path),
    0,
    fakes.FakeSource(None),
    stop,
    fakes.nothing,
  )
  assert not list(tmp_path.iterdir())


def test_a_game_without_reference_is_evaluated_too(tmp_path):
  config = make_run_config()
  config = schema.dataclasses.replace(
    config, env=fakes.make_env_config(game='kaboom', max_episode_frames=20)
  )
  num_actions = environment.num_actions(config.env)
  learner = fakes.FakeSource(
    (0, 10_000, fakes.make_params(config, num_actions))
  )
  evaluator.run_evaluator(
    config, str(tmp_path), 0, learner, threading.Event(), fakes.nothing
  )
  with open(tmp_path / 'evaluation.csv', newline='') as file:
    (row,) = csv.DictReader(file)
  assert row['human_normalized_score'] == ''
