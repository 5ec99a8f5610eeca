"""Frame stacking against an independent loop over single frames."""

import jax.numpy as jnp
import numpy as np
import pytest

from bmg.agents import observations


def _stack_by_hand(frames, starts, frame_stack):
  """Keeps a list of the episode's frames, as an environment wrapper does."""
  stacks, episode = [], []
  for index, (frame, start) in enumerate(zip(frames, starts, strict=True)):
    if start:
      episode = []
    episode.append(frame)
    if index >= frame_stack - 1:
      padded = [np.zeros_like(frame)] * frame_stack + episode
      stacks.append(np.concatenate(padded[-frame_stack:], axis=-1))
  return np.stack(stacks)


@pytest.mark.parametrize('frame_stack', [1, 2, 4])
@pytest.mark.parametrize('channels', [1, 3])
def test_equals_stacking_by_hand(frame_stack, channels):
  rng = np.random.default_rng(frame_stack)
  for _ in range(20):
    num_frames = frame_stack + 9
    frames = rng.integers(1, 255, (num_frames, 3, 2, channels), dtype=np.uint8)
    starts = rng.random(num_frames) < 0.25
    starts[0] = True
    actual = observations.stack_frames(
      jnp.asarray(frames), jnp.asarray(starts), frame_stack
    )
    expected = _stack_by_hand(frames, starts, frame_stack)
    np.testing.assert_array_equal(actual, expected)


def test_batched_equals_single():
  rng = np.random.default_rng(0)
  frames = jnp.asarray(rng.integers(0, 255, (5, 8, 3, 3, 1), dtype=np.uint8))
  starts = jnp.asarray(rng.random((5, 8)) < 0.3)
  batched = observations.stack_frames(frames, starts, 4)
  for index in range(5):
    single = observations.stack_frames(frames[index], starts[index], 4)
    np.testing.assert_array_equal(batched[index], single)
