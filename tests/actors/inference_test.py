"""Central inference, between an actor and a stand-in for Courier."""

import dataclasses
import threading

import numpy as np
import pytest

from bmg.actors import actor, environment, inference
from bmg.agents import networks, observations
from tests.actors import fakes


class _Learner:
  """Serves one actor at a time; fails as often as it is told to."""

  def __init__(self, config):
    self.num_actions = environment.num_actions(config.env)
    self.params = fakes.make_params(config, self.num_actions)
    self.version = 7
    self.failures = []
    self.server = inference.InferenceServer(
      config, self.num_actions, 0, lambda: (self.version, 0, self.params)
    )

  def act(self, frames, starts):
    if self.failures:
      raise self.failures.pop()
    return self.server.act(frames, starts)


def _run(config, learner, num_batches, on_write=None):
  writer = fakes.FakeWriter(num_batches, on_write=on_write)
  source = fakes.FakeSource(AssertionError('parameters are not asked for'))
  actor.run_actor(
    config,
    0,
    0,
    writer,
    source,
    threading.Event(),
    fakes.nothing,
    chooser=learner,
  )
  assert not source.calls
  return writer.batches


def test_the_learner_acts_for_the_actor():
  config = fakes.make_config(num_envs=2, unroll_length=30)
  learner = _Learner(config)
  (batch,) = _run(config, learner, 1)
  network = networks.make_network(config.agent, learner.num_actions)
  for unroll in batch:
    stacks = observations.stack_frames(unroll.frames, unroll.starts, 4)
    logits = network.apply(learner.params, None, stacks[:-1]).main.logits
    np.testing.assert_allclose(
      unroll.behaviour_logits, logits, rtol=1e-4, atol=1e-5
    )
  actions = np.stack([unroll.actions for unroll in batch])
  assert len(np.unique(actions)) > 2


def test_an_unroll_bears_the_version_that_began_it():
  config = fakes.make_config(num_envs=1, unroll_length=4)
  learner = _Learner(config)
  act = learner.act

  def act_and_learn(frames, starts):
    answer = act(frames, starts)
    learner.version += 1
    return answer

  learner.act = act_and_learn
  batches = _run(config, learner, 3)
  versions = [int(batch[0].params_version) for batch in batches]
  assert versions == [7, 11, 15]


def _ask(server, frames):
  """Has a thread for each actor ask; returns the answers in their order."""
  answers = [None] * len(frames)

  def ask(index):
    starts = np.zeros(frames.shape[1:3], bool)
    answers[index] = server.act(frames[index], starts)

  threads = [
    threading.Thread(target=ask, args=(index,)) for index in range(len(frames))
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  return answers


@pytest.mark.parametrize('num_present', [1, 3, 7])
def test_many_actors_share_a_batch(num_present):
  """Of three; where more ask, as two lives of one, batches follow."""
  config = fakes.make_config(num_envs=2)
  actors = dataclasses.replace(
    config.actors, num_actors=3, inference_wait_ms=200.0
  )
  config = dataclasses.replace(config, actors=actors)
  learner = _Learner(config)
  batches = []
  compute = learner.server._compute

  def count(requests):
    batches.append(len(requests))
    return compute(requests)

  learner.server._compute = count
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (num_present, 2, 4, 42, 42, 1), np.uint8)
  answers = _ask(learner.server, frames)
  assert sorted(batches) == {1: [1], 3: [3], 7: [1, 3, 3]}[num_present]
  network = networks.make_network(config.agent, learner.num_actions)
  for actor_frames, (actions, logits, version) in zip(
    frames, answers, strict=True
  ):
    stacks = observations.stack_frames(actor_frames, np.zeros((2, 4), bool), 4)
    expected = network.apply(learner.params, None, stacks[:, 0]).main.logits
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert actions.shape == (2,)
    assert version == 7


def test_a_failed_batch_fails_for_all_and_the_next_one_does_not():
  config = fakes.make_config(num_envs=1)
  learner = _Learner(config)
  frames = np.zeros((1, 4, 42, 42, 1), np.uint8)
  starts = np.zeros((1, 4), bool)
  params, learner.params = learner.params, None
  with pytest.raises(ValueError, match='parameter'):
    learner.act(frames, starts)
  learner.params = params
  assert learner.act(frames, starts)[2] == 7


@pytest.mark.parametrize('error', [TimeoutError('gone'), RuntimeError('odd')])
def test_the_actor_outlives_the_learner(error, monkeypatch):
  monkeypatch.setattr(inference, '_RETRY_S', 0.01)
  config = fakes.make_config()
  learner = _Learner(config)
  learner.failures = [error] * 3
  assert len(_run(config, learner, 1)) == 1
  assert not learner.failures


def test_a_stop_ends_the_wait_for_the_learner():
  config = fakes.make_config()
  learner = _Learner(config)
  stop = threading.Event()

  def fail(frames, starts):
    stop.set()
    raise TimeoutError('gone')

  learner.act = fail
  writer = fakes.FakeWriter(1)
  actor.run_actor(
    config,
    0,
    0,
    writer,
    fakes.FakeSource(),
    stop,
    fakes.nothing,
    chooser=learner,
  )
  assert not writer.batches
