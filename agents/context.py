"""What a meta-network sees: how the agent has been doing lately.

Flennerhag et al. (2022), section 5.1, use recent rewards; Luketina et al.
(2022), section 4, add TD errors and values, and find that this matters more
than the kind of meta-gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Context(NamedTuple):
  """The last N observations of C statistics."""

  # float [N, C], oldest first; zeros where there are none yet.
  history: jax.Array
  # float [C]: moving averages of the squares, and [] the weight in them.
  mean_square: jax.Array
  weight: jax.Array


def initial(length: int, size: int) -> Context:
  """Returns an empty context of N = `length`, C = `size`."""
  return Context(jnp.zeros((length, size)), jnp.zeros((size,)), jnp.zeros(()))


def append(context: Context, statistics: jax.Array, decay: float) -> Context:
  """Takes in an observation, float [C], and drops the oldest.

  Args:
    context: before.
    statistics: the new observation.
    decay: of the moving averages.
  """
  return Context(
    history=jnp.concatenate([context.history[1:], statistics[None]]),
    mean_square=decay * context.mean_square
    + (1.0 - decay) * jnp.square(statistics),
    weight=decay * context.weight + (1.0 - decay),
  )


def features(context: Context) -> jax.Array:
  """Returns float [N * C] in [-1, 1]: each statistic over its usual size."""
  mean_square = context.mean_square / jnp.maximum(context.weight, 1e-8)
  scale = jax.lax.rsqrt(mean_square + 1e-8)
  return jnp.tanh(context.history * scale).reshape(-1)
