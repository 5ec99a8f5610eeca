"""The acting loop between a stand-in for the learner and one for replay."""

import itertools
import threading
import time

import numpy as np

from bmg.actors import actor, environment, policy
from bmg.agents import networks, observations
from tests.actors import fakes


def run(config, writer, source, incarnation=0):
  actor.run_actor(
    config, 0, incarnation, writer, source, threading.Event(), fakes.nothing
  )
  return writer.batches


def make_source(config, version=3):
  params = fakes.make_params(config, environment.num_actions(config.env))
  return fakes.FakeSource((version, 1000, params))


def test_unrolls_have_the_shapes_and_dtypes_that_replay_expects():
  config = fakes.make_config(num_envs=3)
  batches = run(config, fakes.FakeWriter(2), make_source(config))
  spec = actor.types.unroll_spec(5, 4, (42, 42, 1), 6)
  assert [len(batch) for batch in batches] == [3, 3]
  for unroll in batches[1]:
    for field, expected in zip(unroll, spec, strict=True):
      assert field.shape == expected.shape
      assert field.dtype == expected.dtype


def test_unrolls_follow_each_other_without_gap():
  config = fakes.make_config(fakes.make_env_config(max_episode_frames=28))
  batches = run(config, fakes.FakeWriter(8), make_source(config))
  for batch, following in itertools.pairwise(batches):
    for unroll, next_unroll in zip(batch, following, strict=True):
      np.testing.assert_array_equal(unroll.frames[5:], next_unroll.frames[:4])
      np.testing.assert_array_equal(unroll.starts[5:], next_unroll.starts[:4])
  first = batches[0][0]
  assert first.starts[:5].tolist() == [False, False, False, True, False]
  assert not first.frames[:3].any()
  lengths = np.concatenate([batch[0].episode_lengths for batch in batches])
  discounts = np.concatenate([batch[0].discounts for batch in batches])
  # Cut every 7 steps.
  ends = np.arange(1, 41) % 7 == 0
  np.testing.assert_array_equal(lengths, np.where(ends, 28.0, np.nan))
  np.testing.assert_array_equal(discounts, ~ends)


class FakeGames:
  """Two games that show how often they have been stepped."""

  num_actions = 6

  def __init__(self):
    self.num_steps = 0
    self.steps = False

  def reset(self):
    return self._result()

  def send(self, actions):
    assert actions.shape == (2,)
    assert not self.steps
    self.steps = True

  def receive(self):
    assert self.steps
    self.steps = False
    self.num_steps += 1
    return self._result()

  def _result(self):
    numbers = np.full(2, self.num_steps, np.float32)
    frames = np.full((2, 42, 42, 1), self.num_steps, np.uint8)
    ended = np.zeros(2, bool)
    return environment.StepResult(
      frames, ended, numbers, numbers, numbers, numbers
    )


def test_a_group_is_stepped_while_the_other_one_acts():
  config = fakes.make_config(num_envs=4, unroll_length=3, env_groups=2)
  groups = [FakeGames(), FakeGames()]
  others_step = []

  def act(params, frames, starts):
    # Which group asks is seen by what is left to do.
    asking = groups[0] if not groups[0].steps else groups[1]
    (other,) = (games for games in groups if games is not asking)
    others_step.append(other.steps)
    assert frames[:, -1, 0, 0, 0].tolist() == [asking.num_steps] * 2
    return policy.Choice(np.zeros(2, np.int32), np.zeros((2, 6), np.float32))

  collector = actor.UnrollCollector(config, groups, act)
  for first in (0, 3):
    unrolls = collector.collect({}, 7, 0, 0.0)
    assert len(unrolls) == 4
    for unroll in unrolls:
      assert unroll.rewards.tolist() == [first + 1, first + 2, first + 3]
      assert unroll.params_version == 7
  # An unroll begins and ends with all steps done.
  assert others_step == [False, *[True] * 5] * 2


def test_logits_are_those_of_the_policy_that_acted():
  config = fakes.make_config(num_envs=2, unroll_length=30)
  source = make_source(config)
  (batch,) = run(config, fakes.FakeWriter(1), source)
  network = networks.make_network(config.agent, 6)
  for unroll in batch:
    stacks = observations.stack_frames(unroll.frames, unroll.starts, 4)
    logits = network.apply(source.answer[2], None, stacks[:-1]).main.logits
    np.testing.assert_allclose(
      unroll.behaviour_logits, logits, rtol=1e-4, atol=1e-5
    )
    assert np.ptp(unroll.behaviour_logits) > 0.01
  # Sampled, and in each game by itself.
  actions = np.stack([unroll.actions for unroll in batch])
  assert len(np.unique(actions)) > 2
  assert (actions[0] != actions[1]).any()


def test_actions_follow_the_logits():
  config = fakes.make_config(num_envs=4, unroll_length=100)
  num_actions = environment.num_actions(config.env)
  params = fakes.make_params(config, num_actions)
  target = np.log(np.array([0.5, 0.3, 0.1, 0.05, 0.03, 0.02], np.float32))
  for module, leaves in params.items():
    if 'policy' in module:
      leaves['w'] = np.zeros_like(leaves['w'])
      leaves['b'] = target
  source = fakes.FakeSource((0, 0, params))
  batches = run(config, fakes.FakeWriter(5), source)
  actions = np.concatenate([unroll.actions for b in batches for unroll in b])
  frequencies = np.bincount(actions, minlength=6) / len(actions)
  # 2000 draws: six standard deviations of a frequency are below 0.07.
  np.testing.assert_allclose(frequencies, np.exp(target), atol=0.07)


def test_same_seed_same_play_and_a_new_life_plays_anew():
  config = fakes.make_config(unroll_length=40)
  source = make_source(config)
  first, again, other = (
    run(config, fakes.FakeWriter(1), source, incarnation)[0]
    for incarnation in (0, 0, 1)
  )
  for unroll, same in zip(first, again, strict=True):
    np.testing.assert_array_equal(unroll.actions, same.actions)
    np.testing.assert_array_equal(unroll.frames, same.frames)
  assert (first[0].actions != other[0].actions).any()
  # Two lives are told apart even so.
  run_ids = [int(batch[0].actor_run_id) for batch in (first, again, other)]
  assert len(set(run_ids)) == 3
  assert first[0].actor_run_id == first[1].actor_run_id


def test_parameters_are_followed_up_and_down():
  config = fakes.make_config()
  source = make_source(config, version=10)
  params = source.answer[2]

  def publish(num_batches):
    version = {5: 11, 10: 4}.get(num_batches)
    if version is not None:
      source.answer = (version, 0, params)

  writer = fakes.FakeWriter(15, wait_s=0.05, on_write=publish)
  batches = run(config, writer, source)
  versions = [int(batch[0].params_version) for batch in batches]
  assert versions[:5] == [10] * 5
  assert versions[7:10] == [11] * 3
  assert versions[12:] == [4] * 3


def test_a_learner_that_does_not_answer_does_not_stop_acting():
  config = fakes.make_config()
  source = make_source(config)

  def die(num_batches):
    if num_batches == 2:
      source.answer = TimeoutError('no learner')

  batches = run(config, fakes.FakeWriter(30, on_write=die), source)
  assert len(batches) == 30
  assert batches[-1][0].params_version == 3


def test_a_slow_learner_does_not_slow_acting():
  config = fakes.make_config()
  source = make_source(config)

  def slow_down(num_batches):
    if num_batches == 1:
      source.delay_s = 3.0

  writer = fakes.FakeWriter(10, on_write=slow_down)
  run(config, writer, source)
  # The call that began after the first unroll was still held at the end.
  assert len(source.calls) <= 3


def test_the_wait_on_insertion_is_told_with_the_next_unroll():
  config = fakes.make_config(unroll_length=1, num_envs=1)
  writer = fakes.FakeWriter(20, wait_s=0.1)
  batches = run(config, writer, make_source(config))
  waits = [float(batch[0].insert_wait) for batch in batches]
  assert waits[0] == 0.0
  assert all(0.0 < wait < 1.0 for wait in waits[1:])
  assert np.median(waits) > 0.5
  writer = fakes.FakeWriter(5)
  batches = run(config, writer, make_source(config))
  assert [float(batch[0].insert_wait) for batch in batches] == [0.0] * 5


def test_a_stop_ends_the_wait_for_the_first_parameters():
  config = fakes.make_config()
  stop = threading.Event()
  beats = []
  writer = fakes.FakeWriter(1)
  thread = threading.Thread(
    target=actor.run_actor,
    args=(config, 0, 0, writer, fakes.FakeSource(None), stop),
    kwargs={'heartbeat': lambda: beats.append(time.monotonic())},
    daemon=True,
  )
  thread.start()
  fakes.until(lambda: len(beats) > 3)
  stop.set()
  thread.join(timeout=10)
  assert not thread.is_alive()
  assert not writer.batches
