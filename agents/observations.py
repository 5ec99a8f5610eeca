"""Frame stacking: from single frames, stored once, to network inputs."""

import chex
import jax
import jax.numpy as jnp


def stack_frames(
  frames: jax.Array, starts: jax.Array, frame_stack: int
) -> jax.Array:
  """Stacks each frame with the ones before it, within its own episode.

  Args:
    frames: uint8 [..., T + S, H, W, C], consecutive frames of one environment.
    starts: bool [..., T + S], True where a frame is the first of an episode.
    frame_stack: S, the number of frames in a stack.

  Returns:
    uint8 [..., T + 1, H, W, S * C]: at index t the stack that ends in
    `frames[S - 1 + t]`, oldest frame first. Frames from before the episode's
    start are zero, as in the Arcade Learning Environment's own stacking.
  """
  chex.assert_type(frames, jnp.uint8)
  chex.assert_type(starts, jnp.bool_)
  chex.assert_equal_shape_prefix([frames, starts], starts.ndim)
  chex.assert_rank(frames, starts.ndim + 3)
  newest = frame_stack - 1
  length = starts.shape[-1] - newest

  def window(array: jax.Array, age: int, axis: int) -> jax.Array:
    index = [slice(None)] * array.ndim
    index[axis] = slice(newest - age, newest - age + length)
    return array[tuple(index)]

  same_episode = jnp.ones_like(window(starts, 0, -1))
  stack = [window(frames, 0, -4)]
  for age in range(1, frame_stack):
    # A frame is hidden if an episode started at any later frame of the stack.
    same_episode &= ~window(starts, age - 1, -1)
    mask = same_episode[..., None, None, None]
    stack.append(jnp.where(mask, window(frames, age, -4), 0))
  return jnp.concatenate(stack[::-1], axis=-1)
