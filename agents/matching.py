"""Matching functions: how far parameters are from their target.

Flennerhag et al. (2022), sections 3 and 5.2. The target comes first; gradients
flow into the second argument alone. A function of one's own needs no
registration: `meta.matching = 'package.module:function'` names it. Those here
take the mean or the sum over states, as `meta.matching_reduction` says; the
paper does not say which it takes.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bmg.agents import losses, types
from bmg.configs import schema
from bmg.configs.schema import checks


class Point(NamedTuple):
  """Parameters, and what they say of the states to match in.

  What a function does not look at is not computed.
  """

  params: types.Params
  # Logits [..., A] and values [...]: of the main policy, and the value that the
  # plain objective learns.
  output: types.HeadOutput


# (target, point, config) -> scalar.
MatchingFunction = Callable[[Point, Point, schema.Meta], jax.Array]


def kl(target: Point, point: Point, config: schema.Meta) -> jax.Array:
  """Returns the weighted KL(target policy || policy), the paper's KL."""
  divergences = losses.kl_divergence(target.output.logits, point.output.logits)
  return config.policy_matching_weight * _reduce(divergences, config)


def reverse_kl(target: Point, point: Point, config: schema.Meta) -> jax.Array:
  """Returns the weighted KL(policy || target policy)."""
  divergences = losses.kl_divergence(point.output.logits, target.output.logits)
  return config.policy_matching_weight * _reduce(divergences, config)


def symmetric_kl(target: Point, point: Point, config: schema.Meta) -> jax.Array:
  """Returns the sum of both directions, the paper's KL-S (factor unknown)."""
  return kl(target, point, config) + reverse_kl(target, point, config)


def value(target: Point, point: Point, config: schema.Meta) -> jax.Array:
  """Returns the weighted squared difference of values, the paper's V."""
  squares = jnp.square(target.output.values - point.output.values)
  return config.value_matching_weight * _reduce(squares, config)


def kl_value(target: Point, point: Point, config: schema.Meta) -> jax.Array:
  """Returns the paper's KL & V."""
  return kl(target, point, config) + value(target, point, config)


def l2(target: Point, point: Point, config: schema.Meta) -> jax.Array:
  """Returns the squared Euclidean distance of the parameters, unweighted."""
  del config
  squares = jax.tree.map(
    lambda a, b: jnp.sum(jnp.square(a - b)), target.params, point.params
  )
  return sum(jax.tree.leaves(squares), start=jnp.zeros(()))


def _reduce(distances: jax.Array, config: schema.Meta) -> jax.Array:
  """Mean or sum over states."""
  return getattr(jnp, config.matching_reduction)(distances)


_FUNCTIONS: Mapping[str, MatchingFunction] = {
  'kl': kl,
  'reverse_kl': reverse_kl,
  'symmetric_kl': symmetric_kl,
  'value': value,
  'kl_value': kl_value,
  'l2': l2,
}


def get_function(name: str) -> MatchingFunction:
  """Returns the matching function of a name, or of 'package.module:function'.

  Raises:
    ConfigError: there is no such function.
  """
  if name in _FUNCTIONS:
    return _FUNCTIONS[name]
  module, _, function = name.partition(':')
  try:
    return getattr(importlib.import_module(module), function)
  # It is code of the user's: anything may go wrong in it.
  except Exception as error:
    problem = f'cannot be imported: {type(error).__name__}: {error}'
    raise checks.ConfigError('meta.matching', name, problem) from error
