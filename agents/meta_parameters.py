"""Meta-parameters: what stands for bounded hyper-parameters, and is learned.

Every learned hyper-parameter of every head is an unbounded logit,

    value = low + (high - low) * sigmoid(logit)

(Zahavy et al., 2020, section 3). The logits are a table, or the output of a
small network that sees a context. To meta-learn another hyper-parameter of the
loss, give it a field in `types.Hypers` and in `configs.schema.MetaParameters`;
nothing else changes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from bmg.agents import types
from bmg.configs import schema

# {name: logits [H]}, or the parameters of a network.
MetaParams = Any


class Parametrization(NamedTuple):
  """How meta-parameters give hyper-parameters."""

  # (random key) -> meta-parameters that give every `initial` value.
  init: Callable[[jax.Array], MetaParams]
  # (meta-parameters, context [C] or None) -> hypers, float [H] each; those that
  # are not learned have their fixed value.
  hypers: Callable[[MetaParams, jax.Array | None], types.Hypers]
  # (meta-parameters, context [C] or None) -> how far each learned logit is from
  # where it started, {name: float [H]}.
  travel: Callable[[MetaParams, jax.Array | None], dict[str, jax.Array]]


class Logits(NamedTuple):
  """A table of logits, or a network that gives them."""

  # (random key) -> meta-parameters that give the initial logits.
  init: Callable[[jax.Array], MetaParams]
  # (meta-parameters, context [C] or None) -> {name: logits [H]}.
  apply: Callable[[MetaParams, jax.Array | None], dict[str, jax.Array]]


def make_parametrization(
  config: schema.Meta, num_heads: int, context_size: int = 0
) -> Parametrization:
  """Returns a table of logits, or a network if there is a context.

  Args:
    config: bounds, initial and fixed values; the network's hidden layers.
    num_heads: H.
    context_size: C; 0 makes a table.
  """
  initial = {
    name: _initial_logit(config.parameters, name)
    for name in config.parameters.learned
  }
  logits = make_logits(initial, num_heads, context_size, config.context.hidden)
  return Parametrization(
    init=logits.init,
    hypers=lambda meta_params, context: _hypers(
      logits.apply(meta_params, context), config.parameters, num_heads
    ),
    travel=lambda meta_params, context: {
      name: logit - initial[name]
      for name, logit in logits.apply(meta_params, context).items()
    },
  )


def make_logits(
  initial: Mapping[str, jax.Array | float],
  num_heads: int,
  context_size: int,
  hidden: Sequence[int],
) -> Logits:
  """Returns a table of logits, or a network if there is a context.

  Args:
    initial: where learning begins, whatever the context; by name.
    num_heads: H.
    context_size: C; 0 makes a table.
    hidden: units of the network's hidden layers.
  """
  if context_size == 0 or not initial:
    return Logits(
      init=lambda rng: {
        # A dtype of its own, or each of the first steps would be compiled anew.
        name: jnp.full((num_heads,), logit, dtype=float)
        for name, logit in initial.items()
      },
      apply=lambda meta_params, context: meta_params,
    )

  def forward(context: jax.Array) -> dict[str, jax.Array]:
    features = hk.nets.MLP(hidden, activate_final=True)(context)
    output = hk.Linear(
      len(initial) * num_heads, w_init=hk.initializers.Constant(0.0)
    )(features)
    by_name = output.reshape(len(initial), num_heads)
    return {
      name: logit + by_name[index]
      for index, (name, logit) in enumerate(initial.items())
    }

  network = hk.transform(forward)
  return Logits(
    init=lambda rng: network.init(rng, jnp.zeros(context_size)),
    apply=lambda meta_params, context: network.apply(
      meta_params, None, jax.lax.stop_gradient(context)
    ),
  )


def fixed_hypers(config: schema.MetaParameters) -> types.Hypers:
  """Returns the hyper-parameters of the plain objective, scalars."""
  hypers = types.Hypers(
    **{
      spec.name: getattr(config, spec.name).fixed
      for spec in dataclasses.fields(config)
    }
  )
  return hypers if config.cut_leak.learned else _share_leak(hypers)


def _share_leak(hypers: types.Hypers) -> types.Hypers:
  """Has the trace cuts leak as the weights do, as in the paper."""
  return hypers._replace(cut_leak=hypers.leak)


def _initial_logit(config: schema.MetaParameters, name: str) -> jax.Array:
  spec: schema.MetaParameter = getattr(config, name)
  share = (spec.initial - spec.low) / (spec.high - spec.low)
  return jnp.log(share) - jnp.log1p(-share)


def _hypers(
  logits: dict[str, jax.Array], config: schema.MetaParameters, num_heads: int
) -> types.Hypers:
  """Returns learned values where there are any, and fixed ones elsewhere."""
  fixed = fixed_hypers(config)
  hypers = jax.tree.map(lambda value: jnp.full((num_heads,), value), fixed)
  learned = {}
  for name, logit in logits.items():
    spec: schema.MetaParameter = getattr(config, name)
    learned[name] = spec.low + (spec.high - spec.low) * jax.nn.sigmoid(logit)
  hypers = hypers._replace(**learned)
  return hypers if 'cut_leak' in learned else _share_leak(hypers)
