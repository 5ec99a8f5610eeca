"""Stand-ins for what surrounds the learner."""

import threading

import numpy as np

from bmg.agents import types
from bmg.configs import schema

NUM_ACTIONS = 3


def tiny_config(**overrides) -> schema.Config:
  """A run whose every update costs 32 frames and little time."""
  values = {
    'num_frames': 32 * 6,
    'env': {'protocol': 'small42', 'frame_stack': 2},
    'actors': {'unroll_length': 4},
    'agent': {
      'torso': 'small',
      'head_hidden': (8,),
      'auxiliary_heads': 0,
    },
    'replay': {'online_batch': 2, 'replay_batch': 1},
    'meta': {'mode': 'none', 'bootstrap_batch': 2},
    'learner': {'log_period_s': 1e-6, 'num_devices': 1},
  }
  for group, fields in overrides.items():
    if isinstance(fields, dict):
      values[group] = values.get(group, {}) | fields
    else:
      values[group] = fields
  return schema.from_config_dict(values)


class FakeReader:
  """A reader whose n-th unroll of each table is always the same."""

  def __init__(
    self, config: schema.Config, first_online: int = 0, first_replay: int = 0
  ):
    self._config = config
    self._next = {'online': first_online, 'replay': 10**6 + first_replay}
    self.checkpointed_after = None
    self.closed = False

  def online(self, num_unrolls, stop, heartbeat):
    heartbeat()
    return self._read('online', num_unrolls)

  def replay(self, num_unrolls, stop, heartbeat):
    heartbeat()
    return self._read('replay', num_unrolls)

  def sizes(self):
    return {'online': 1, 'replay': 2}

  def checkpoint(self, timeout):
    self.checkpointed_after = timeout
    return ['somewhere']

  def close(self):
    self.closed = True

  def _read(self, table: str, num_unrolls: int) -> types.Unroll:
    first = self._next[table]
    self._next[table] += num_unrolls
    unrolls = [self.unroll(first + i) for i in range(num_unrolls)]
    return types.Unroll(*(np.stack(x) for x in zip(*unrolls, strict=True)))

  def unroll(self, index: int) -> types.Unroll:
    rng = np.random.default_rng(index)
    config = self._config
    spec = types.unroll_spec(
      config.actors.unroll_length,
      config.env.frame_stack,
      config.env.frame_shape,
      NUM_ACTIONS,
    )
    length = config.actors.unroll_length
    # Every second unroll ends one game.
    returns = np.full(length, np.nan, np.float32)
    if index % 2:
      returns[1] = index
    return spec._replace(
      frames=rng.integers(256, size=spec.frames.shape, dtype=np.uint8),
      actions=rng.integers(NUM_ACTIONS, size=length, dtype=np.int32),
      rewards=rng.normal(size=length).astype(np.float32),
      discounts=np.ones(length, np.float32),
      behaviour_logits=rng.normal(size=spec.behaviour_logits.shape).astype(
        np.float32
      ),
      episode_returns=returns,
      episode_lengths=returns * 10,
      insert_wait=np.float32(0.25),
    )


def run(learner, until: int) -> None:
  """Runs a learner and stops it right after `until` updates."""
  stop = threading.Event()
  main_thread = threading.current_thread()

  def heartbeat() -> None:
    if threading.current_thread() is main_thread:
      version, _, _ = learner.get_parameters(-1)
      if version >= until:
        stop.set()

  learner.run(stop, heartbeat)
