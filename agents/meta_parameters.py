"""Meta-parameters: unbounded logits that stand for bounded hyper-parameters.

Zahavy et al. (2020), section 3: value = low + (high - low) * sigmoid(logit).
To meta-learn another hyper-parameter of the loss, give it a field in
`types.Hypers` and in `configs.schema.MetaParameters`; nothing else changes.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from agents import types
from configs import schema

# {name: float32 scalar logit} of the learned meta-parameters.
MetaParams = dict[str, jax.Array]


def initial(config: schema.MetaParameters) -> MetaParams:
  """Returns the logits at which every learned meta-parameter is `initial`."""
  meta_params = {}
  for name in config.learned:
    spec: schema.MetaParameter = getattr(config, name)
    share = (spec.initial - spec.low) / (spec.high - spec.low)
    meta_params[name] = jnp.log(share) - jnp.log1p(-share)
  return meta_params


def fixed_hypers(config: schema.MetaParameters) -> types.Hypers:
  """Returns the hyper-parameters of the plain objective."""
  return types.Hypers(
    **{
      spec.name: getattr(config, spec.name).fixed
      for spec in dataclasses.fields(config)
    }
  )


def to_hypers(
  meta_params: Mapping[str, jax.Array], config: schema.MetaParameters
) -> types.Hypers:
  """Returns learned values where there are any, and fixed ones elsewhere.

  Args:
    meta_params: scalar logits of the learned meta-parameters.
    config: bounds and fixed values.

  Returns:
    Hypers, differentiable in `meta_params`.
  """
  learned = {}
  for name, logit in meta_params.items():
    spec: schema.MetaParameter = getattr(config, name)
    learned[name] = spec.low + (spec.high - spec.low) * jax.nn.sigmoid(logit)
  return fixed_hypers(config)._replace(**learned)
