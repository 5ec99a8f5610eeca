"""Actor, learner and emulator agree on what a stack of frames is."""

import ale_py.vector_env
import numpy as np
import pytest

from bmg.actors import actor, policy
from bmg.agents import networks, observations
from tests.actors import fakes

_SEEDS = np.array([11, 12, 13])


def collect(config, num_unrolls, monkeypatch):
  """Returns unrolls stacked to [N, E, ...], and stacks the policy saw."""
  seen = []
  monkeypatch.setattr(
    networks, 'make_network', fakes.constant_network(seen.append)
  )
  groups = actor.make_games(config, _SEEDS)
  acting = policy.Policy(config, groups[0].num_actions, seed=0)
  collector = actor.UnrollCollector(config, groups, acting)
  batches = [collector.collect({}, 0, 0, 0.0) for _ in range(num_unrolls)]
  for games in groups:
    games.close()
  unrolls = [
    [np.stack(field) for field in zip(*unrolls, strict=True)]
    for unrolls in batches
  ]
  stacked = actor.types.Unroll(
    *(np.stack(field) for field in zip(*unrolls, strict=True))
  )
  # One group after the other, at each step.
  seen = np.array(seen)
  return stacked, seen.reshape(-1, 3, *seen.shape[2:])


def emulator_stacks(config, actions):
  """Plays the actions, [T, E], in games that stack frames by themselves."""
  games = ale_py.vector_env.AtariVectorEnv(
    config.env.game,
    num_envs=3,
    num_threads=1,
    stack_num=config.env.frame_stack,
    img_height=config.env.height,
    img_width=config.env.width,
    grayscale=config.env.grayscale,
    maxpool=config.env.max_pool,
    noop_max=config.env.max_no_ops + 1,
    max_num_frames_per_episode=config.env.max_episode_frames,
    reward_clipping=False,
    use_fire_reset=False,
    autoreset_mode='SameStep',
  )
  stacks = [games.reset(seed=_SEEDS)[0]]
  num_ends = 0
  for action in actions:
    stack, _, terminated, truncated, _ = games.step(action)
    stacks.append(stack)
    num_ends += (terminated | truncated).sum()
  stacks = np.stack(stacks)
  if config.env.grayscale:
    stacks = stacks[..., None]
  # [T, E, S, H, W, C] -> [T, E, H, W, S, C] -> [T, E, H, W, S * C].
  stacks = np.moveaxis(stacks, 2, 4)
  return stacks.reshape(*stacks.shape[:4], -1), num_ends


@pytest.mark.parametrize(
  ('env', 'unroll_length', 'num_unrolls', 'env_groups'),
  [
    # Cut every 9 steps, so that ends fall on every place of the 5-step unrolls.
    ({'max_episode_frames': 36}, 5, 20, 1),
    # Shorter than the stack, unrolls as well as games.
    ({'max_episode_frames': 8}, 1, 30, 3),
    ({'max_episode_frames': 36, 'frame_stack': 1}, 4, 10, 1),
    ({'max_episode_frames': 36, 'grayscale': False}, 5, 10, 3),
    # Games that end by themselves.
    ({'game': 'breakout'}, 20, 30, 1),
  ],
)
def test_stacking_is_the_same_everywhere(
  env, unroll_length, num_unrolls, env_groups, monkeypatch
):
  config = fakes.make_config(
    fakes.make_env_config(**env),
    num_envs=3,
    unroll_length=unroll_length,
    env_groups=env_groups,
  )
  unrolls, seen = collect(config, num_unrolls, monkeypatch)
  # [N, E, T] -> [N * T, E].
  actions = np.moveaxis(unrolls.actions, 1, 2).reshape(-1, 3)
  expected, num_ends = emulator_stacks(config, actions)
  assert num_ends >= 4
  # What the policy saw.
  assert len(np.unique(expected)) > 2
  np.testing.assert_array_equal(seen, expected[:-1])
  # What the learner sees: T + 1 stacks, the last for bootstrapping.
  learner_stacks = np.asarray(
    observations.stack_frames(
      unrolls.frames, unrolls.starts, config.env.frame_stack
    )
  )
  for index in range(num_unrolls):
    first = index * unroll_length
    np.testing.assert_array_equal(
      np.moveaxis(learner_stacks[index], 0, 1),
      expected[first : first + unroll_length + 1],
    )
