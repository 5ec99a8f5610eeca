"""The environment against single emulators, driven by hand."""

import ale_py
import numpy as np
import pytest

from bmg.actors import environment
from tests.actors import fakes


def make_environment(config, seeds=(1, 2), num_threads=1):
  return environment.AtariEnvironment(
    config, len(seeds), num_threads, np.array(seeds)
  )


def play(config, num_steps, seeds=(1, 2), action_seed=0, num_threads=1):
  """Plays at random; returns actions [T, E] and T + 1 step results."""
  games = make_environment(config, seeds, num_threads)
  actions = np.random.default_rng(action_seed).integers(
    games.num_actions, size=(num_steps, len(seeds)), dtype=np.int32
  )
  steps = [games.reset()] + [games.step(action) for action in actions]
  games.close()
  return actions, steps


def assert_same(steps, other_steps):
  for step, other in zip(steps, other_steps, strict=True):
    for ours, theirs in zip(step, other, strict=True):
      np.testing.assert_array_equal(ours, theirs)


class Emulator:
  """One game, by ale-py's single interface."""

  def __init__(self, config, seed, no_ops):
    self._ale = environment.load_emulator(config.game, seed, 0.0)
    self._actions = self._ale.getMinimalActionSet()
    self._config = config
    self._no_ops = no_ops

  def reset(self):
    self._ale.reset_game()
    for _ in range(self._no_ops):
      self._ale.act(ale_py.Action.NOOP)

  def step(self, action):
    """Returns reward, frames acted, whether the game is over."""
    reward = frames = 0
    for _ in range(self._config.action_repeat):
      reward += self._ale.act(self._actions[action])
      frames += 1
      if self._ale.game_over():
        break
    return reward, frames, self._ale.game_over()

  @property
  def lives(self):
    return self._ale.lives()

  @property
  def screen(self):
    return self._ale.getScreenRGB()


def test_paper_protocol_shows_the_native_screen():
  config = fakes.make_env_config('paper', max_no_ops=0)
  actions, steps = play(config, 30)
  emulator = Emulator(config, seed=1, no_ops=0)
  emulator.reset()
  assert steps[0].frames.shape == (2, 210, 160, 3)
  assert steps[0].frames.dtype == np.uint8
  np.testing.assert_array_equal(steps[0].frames[0], emulator.screen)
  for action, step in zip(actions, steps[1:], strict=True):
    reward, _, _ = emulator.step(action[0])
    np.testing.assert_array_equal(step.frames[0], emulator.screen)
    assert step.rewards[0] == reward


def test_height_comes_before_width():
  config = fakes.make_env_config(height=50, width=30)
  _, steps = play(config, 1)
  assert steps[1].frames.shape == (2, 50, 30, 1)
  # Breakout's wall runs from left to right: rows differ more than columns.
  config = fakes.make_env_config(game='breakout', height=50, width=30)
  frame = play(config, 1)[1][0].frames[0, :, :, 0].astype(float)
  assert frame.mean(axis=1).std() > 2 * frame.mean(axis=0).std()


def test_scores_lengths_and_discounts_of_full_games():
  config = fakes.make_env_config('paper', game='breakout', max_no_ops=7)
  games = make_environment(config, seeds=(3,))
  rng = np.random.default_rng(0)
  emulator = Emulator(config, 3, no_ops=0)
  games.reset()
  num_lost_lives = 0
  for _ in range(2):
    emulator._no_ops = games.no_ops[0]
    emulator.reset()
    total = length = 0
    over = False
    while not over:
      lives = emulator.lives
      action = rng.integers(4, size=1, dtype=np.int32)
      reward, frames, over = emulator.step(action[0])
      step = games.step(action)
      total += reward
      length += frames
      assert step.starts[0] == over
      assert step.rewards[0] == reward
      assert step.discounts[0] == (0 if emulator.lives < lives or over else 1)
      num_lost_lives += emulator.lives < lives
      if not over:
        assert np.isnan(step.episode_returns[0])
        assert np.isnan(step.episode_lengths[0])
    assert step.episode_returns[0] == total
    assert step.episode_lengths[0] == length
    assert length % config.action_repeat, 'the test should end within a repeat'
  assert num_lost_lives == 10
  games.close()


def test_lost_lives_can_be_left_alone():
  config = fakes.make_env_config(
    game='breakout', zero_discount_on_life_loss=False
  )
  _, steps = play(config, 600)
  for step in steps[1:]:
    np.testing.assert_array_equal(step.discounts, ~step.starts)
  assert sum(step.starts.sum() for step in steps[1:]) > 2


def test_rewards_are_raw():
  config = fakes.make_env_config(game='ms_pacman')
  _, steps = play(config, 200)
  assert max(step.rewards.max() for step in steps) >= 10


@pytest.mark.parametrize('max_no_ops', [0, 30])
def test_games_are_cut_after_so_many_emulator_frames_without_no_ops(max_no_ops):
  config = fakes.make_env_config(max_episode_frames=100, max_no_ops=max_no_ops)
  _, steps = play(config, 60)
  for t, step in enumerate(steps[1:], start=1):
    ended = t % 25 == 0
    np.testing.assert_array_equal(step.starts, [ended] * 2)
    np.testing.assert_array_equal(step.discounts, [0.0 if ended else 1.0] * 2)
    lengths = [100.0 if ended else np.nan] * 2
    np.testing.assert_array_equal(step.episode_lengths, lengths)


def test_a_cut_may_fall_within_an_action_repeat():
  _, steps = play(fakes.make_env_config(max_episode_frames=10), 3)
  np.testing.assert_array_equal(steps[3].starts, [True, True])
  np.testing.assert_array_equal(steps[3].episode_lengths, [10.0, 10.0])


@pytest.mark.parametrize('max_no_ops', [0, 2])
def test_no_ops_range_from_none_to_the_maximum(max_no_ops):
  config = fakes.make_env_config(max_no_ops=max_no_ops, max_episode_frames=4)
  games = make_environment(config, seeds=range(5))
  games.reset()
  seen = set(games.no_ops)
  for _ in range(5):
    games.step(np.zeros(5, np.int32))
    seen |= set(games.no_ops)
  assert seen == set(range(max_no_ops + 1))
  games.close()


def test_same_seed_same_stream():
  config = fakes.make_env_config(
    game='breakout', sticky_action_probability=0.25
  )
  _, steps = play(config, 300)
  _, again = play(config, 300, num_threads=2)
  assert_same(steps, again)
  _, other = play(config, 300, seeds=(1, 3))
  assert any(
    (step.frames[1] != different.frames[1]).any()
    for step, different in zip(steps, other, strict=True)
  )
  # A game does not depend on its neighbours.
  for step, different in zip(steps, other, strict=True):
    np.testing.assert_array_equal(step.frames[0], different.frames[0])


def test_reset_starts_from_the_seeds_again():
  config = fakes.make_env_config(max_episode_frames=40)
  games = make_environment(config)
  actions = np.zeros((25, 2), np.int32)
  steps = [games.reset()] + [games.step(action) for action in actions]
  again = [games.reset()] + [games.step(action) for action in actions]
  assert_same(steps, again)
  games.close()


def test_frames_are_not_overwritten_by_later_steps():
  games = make_environment(fakes.make_env_config())
  first = games.reset()
  copy = first.frames.copy()
  for _ in range(40):
    games.step(np.full(2, 2, np.int32))
  np.testing.assert_array_equal(first.frames, copy)
  games.close()


def test_max_pooling_takes_the_maximum_of_the_last_two_frames():
  config = fakes.make_env_config(
    height=210, width=160, max_no_ops=0, max_pool=True
  )
  actions, steps = play(config, 60, seeds=(5,))
  emulator = environment.load_emulator(config.game, 5, 0.0)
  emulator.reset_game()
  pooled = 0
  for action, step in zip(actions, steps[1:], strict=True):
    screens = []
    for _ in range(4):
      emulator.act(emulator.getMinimalActionSet()[action[0]])
      screens.append(emulator.getScreenGrayscale())
    expected = np.maximum(screens[-1], screens[-2])
    np.testing.assert_array_equal(step.frames[0, :, :, 0], expected)
    pooled += (expected != screens[-1]).any()
  assert pooled > 10


def test_number_of_actions():
  assert environment.num_actions(fakes.make_env_config()) == 6
  breakout = fakes.make_env_config(game='breakout')
  assert environment.num_actions(breakout) == 4
  full = fakes.make_env_config(game='breakout', full_action_space=True)
  assert environment.num_actions(full) == 18
  games = make_environment(full)
  assert games.num_actions == 18
  games.reset()
  games.step(np.array([17, 0], np.int32))
  games.close()


def test_wrong_number_of_seeds_is_refused():
  with pytest.raises(ValueError, match='seeds'):
    environment.AtariEnvironment(fakes.make_env_config(), 2, 1, np.array([1]))
