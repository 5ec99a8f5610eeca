"""Action choice for a batch of games, as one jitted function."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bmg.agents import compilation, networks, observations
from bmg.agents.types import Params
from bmg.configs import schema


class Choice(NamedTuple):
  """int32 [E] actions, and float32 [E, A] logits of the policy behind them."""

  actions: np.ndarray
  logits: np.ndarray
  # Of the parameters, where they are not the caller's.
  version: int | None = None


class Policy:
  """Acts on the last S single frames of each of E games.

  Stacking is the learner's own `stack_frames`, so that both see the same. The
  random state stays on the device.
  """

  def __init__(
    self,
    config: schema.Config,
    num_actions: int,
    seed: int,
    greedy: bool = False,
  ):
    self._rng = jax.random.PRNGKey(seed)
    network = networks.make_network(config.agent, num_actions)
    frame_stack = config.env.frame_stack

    def choose(
      params: Params, rng: jax.Array, frames: jax.Array, starts: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
      # [E, S, H, W, C] -> [E, 1, H, W, S * C] -> [E, H, W, S * C].
      stacks = observations.stack_frames(frames, starts, frame_stack)[:, 0]
      logits = network.apply(params, None, stacks).main.logits
      rng, sample_rng = jax.random.split(rng)
      if greedy:
        actions = jnp.argmax(logits, axis=-1)
      else:
        actions = jax.random.categorical(sample_rng, logits)
      return rng, actions.astype(jnp.int32), logits

    options = compilation.compiler_options(jax.default_backend())
    self._choose = jax.jit(choose, compiler_options=options)

  def __call__(
    self,
    params: Params,
    frames: np.ndarray | jax.Array,
    starts: np.ndarray | jax.Array,
  ) -> Choice:
    """Chooses actions, and waits for them.

    Args:
      params: on the device, or they are copied there at every call.
      frames: uint8 [E, S, H, W, C], oldest first.
      starts: bool [E, S], True where a frame is the first of an episode.
    """
    self._rng, actions, logits = self._choose(params, self._rng, frames, starts)
    return Choice(np.asarray(actions), np.asarray(logits))
