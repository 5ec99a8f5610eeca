"""What travels between actor, replay and learner, and between pure functions.

Time-major names: `T` unroll length, `S` stacked frames, `A` actions, `B` batch.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

# A Haiku parameter tree: {module: {name: array}}.
Params = Any


class Unroll(NamedTuple):
  """T steps of one environment, as one actor writes them and replay keeps them.

  Frames are single and stored once: `frames[S - 1 + t]` is the frame that the
  policy saw last at step t, and the first S - 1 frames are the history before
  step 0. `frames[S - 1 + T]` is the frame after the last step, for
  bootstrapping. In a learner batch every field gains a leading axis B.
  """

  # uint8 [T + S, H, W, C].
  frames: np.ndarray | jax.Array
  # bool [T + S]: this frame is the first of an episode, so that no stack
  # reaches back past it.
  starts: np.ndarray | jax.Array
  # int32 [T].
  actions: np.ndarray | jax.Array
  # float32 [T]: the raw reward that followed the action.
  rewards: np.ndarray | jax.Array
  # float32 [T]: 0 where the episode ended (or, if so configured, a life was
  # lost) after the action, else 1.
  discounts: np.ndarray | jax.Array
  # float32 [T, A]: logits of the behaviour policy.
  behaviour_logits: np.ndarray | jax.Array
  # float32 [T]: raw return and length in emulator frames of the full game that
  # ended after the action; NaN where none did.
  episode_returns: np.ndarray | jax.Array
  episode_lengths: np.ndarray | jax.Array
  # int64 []: learner update that the acting parameters came from.
  params_version: np.ndarray | jax.Array
  # int64 []: identifies one life of one actor process.
  actor_run_id: np.ndarray | jax.Array
  # float32 []: share of its time that the actor last waited on insertion.
  insert_wait: np.ndarray | jax.Array


class HeadOutput(NamedTuple):
  """Policy logits [..., A] and state values [...]."""

  logits: jax.Array
  values: jax.Array


class NetworkOutput(NamedTuple):
  """What the network says of some states."""

  # Of all heads, along a leading axis H: [H, ..., A] and [H, ...]. The first is
  # the main one, which acts.
  heads: HeadOutput
  # [...]: the main policy's value by the plain objective, or None.
  outer_values: jax.Array | None = None

  @property
  def main(self) -> HeadOutput:
    """The main policy with its value."""
    return HeadOutput(self.heads.logits[0], self.heads.values[0])

  @property
  def outer(self) -> HeadOutput:
    """The main policy with the value that the plain objective learns."""
    if self.outer_values is None:
      return self.main
    return HeadOutput(self.heads.logits[0], self.outer_values)


class Hypers(NamedTuple):
  """Values of the loss's hyper-parameters, each float32: [], or [H] by head.

  The fields are those of `configs.schema.MetaParameters`.
  """

  discount: jax.Array | float
  trace_lambda: jax.Array | float
  leak: jax.Array | float
  cut_leak: jax.Array | float
  policy_weight: jax.Array | float
  entropy_weight: jax.Array | float
  value_weight: jax.Array | float


def unroll_spec(
  unroll_length: int,
  frame_stack: int,
  frame_shape: tuple[int, int, int],
  num_actions: int,
) -> Unroll:
  """Returns an `Unroll` of zeros: the shapes and dtypes of a single one."""
  t, s = unroll_length, frame_stack
  return Unroll(
    frames=np.zeros((t + s, *frame_shape), np.uint8),
    starts=np.zeros((t + s,), np.bool_),
    actions=np.zeros((t,), np.int32),
    rewards=np.zeros((t,), np.float32),
    discounts=np.zeros((t,), np.float32),
    behaviour_logits=np.zeros((t, num_actions), np.float32),
    episode_returns=np.zeros((t,), np.float32),
    episode_lengths=np.zeros((t,), np.float32),
    params_version=np.zeros((), np.int64),
    actor_run_id=np.zeros((), np.int64),
    insert_wait=np.zeros((), np.float32),
  )
