"""Matching functions: how far a policy and value are from their target.

Flennerhag et al. (2022), sections 3 and 5.2. The target comes first; gradients
flow into the second argument alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from agents import losses, types
from configs import schema


class MatchingTerms(NamedTuple):
  """Scalars: the weighted total, mean KL(target || policy), mean (dV)^2."""

  total: jax.Array
  kl: jax.Array
  value: jax.Array


def kl_and_value(
  target: types.NetworkOutput, output: types.NetworkOutput, config: schema.Meta
) -> MatchingTerms:
  """Returns the paper's 'KL & V', averaged over states.

  Args:
    target: logits [..., A] and values [...] of the target parameters.
    output: the same of the K-step parameters.
    config: the weight of each term.
  """
  kl = jnp.mean(losses.kl_divergence(target.logits, output.logits))
  value = jnp.mean(jnp.square(target.values - output.values))
  total = (
    config.policy_matching_weight * kl + config.value_matching_weight * value
  )
  return MatchingTerms(total, kl, value)
