"""Configurations and stand-ins that the tests of actors share."""

import dataclasses
import threading
import time

import haiku as hk
import jax
import numpy as np

from bmg.agents import networks, types
from bmg.configs import schema


def make_env_config(protocol='small42', **overrides) -> schema.Environment:
  return schema.Environment(
    protocol=protocol, **{**schema.PROTOCOLS[protocol], **overrides}
  )


def make_config(
  env=None, num_envs=2, unroll_length=5, env_groups=1, **overrides
):
  return schema.Config(
    env=env or make_env_config(),
    actors=schema.Actors(
      envs_per_actor=num_envs,
      env_groups=env_groups,
      unroll_length=unroll_length,
    ),
    agent=schema.Agent(torso='small', head_hidden=()),
    **overrides,
  )


def make_params(config: schema.Config, num_actions: int, seed: int = 0):
  """Initial parameters as NumPy."""
  network = networks.make_network(config.agent, num_actions)
  height, width, channels = config.env.frame_shape
  stack = np.zeros(
    (1, height, width, config.env.frame_stack * channels), np.uint8
  )
  params = network.init(jax.random.PRNGKey(seed), stack)
  return jax.tree.map(np.array, params)


@dataclasses.dataclass
class FakeSource:
  """Serves `answer`, or raises it; notes the calls."""

  answer: object = None
  delay_s: float = 0.0
  calls: list = dataclasses.field(default_factory=list)

  def get_parameters(self, unless_version):
    self.calls.append((time.monotonic(), unless_version))
    time.sleep(self.delay_s)
    if isinstance(self.answer, Exception):
      raise self.answer
    if self.answer is None or self.answer[0] == unless_version:
      return None
    return self.answer


class FakeWriter:
  """Keeps unrolls by batch; sets `stop` after so many batches."""

  def __init__(self, max_batches: int, wait_s: float = 0.0, on_write=None):
    self.batches = []
    self._max_batches = max_batches
    self._wait_s = wait_s
    self._on_write = on_write

  def write(self, unrolls, stop: threading.Event, heartbeat) -> float:
    heartbeat()
    self.batches.append(list(unrolls))
    if self._on_write:
      self._on_write(len(self.batches))
    time.sleep(self._wait_s)
    if len(self.batches) >= self._max_batches:
      stop.set()
    return self._wait_s


def nothing() -> None:
  """A heartbeat that nobody hears."""


def constant_network(observe):
  """Returns a stand-in for `make_network`: uniform policy, shown stacks."""

  def make_network(config, num_actions):
    del config

    def apply(params, rng, stacks):
      del params, rng
      jax.debug.callback(observe, stacks, ordered=True)
      logits = jax.numpy.zeros((len(stacks), num_actions))
      heads = types.HeadOutput(logits[None], logits[None, :, 0])
      return types.NetworkOutput(heads)

    return hk.Transformed(init=None, apply=apply)

  return make_network


def until(condition, timeout_s: float = 10.0) -> None:
  """Waits for a condition, or fails."""
  deadline = time.monotonic() + timeout_s
  while not condition():
    assert time.monotonic() < deadline, 'timed out'
    time.sleep(0.005)
