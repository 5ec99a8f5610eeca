"""The bounded parametrisation of meta-parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from agents import meta_parameters
from configs import schema


def test_initial_values_are_the_papers():
  config = schema.MetaParameters()
  meta_params = meta_parameters.initial(config)
  for logit in meta_params.values():
    np.testing.assert_allclose(logit, 4.6, rtol=1e-5)
  hypers = meta_parameters.to_hypers(meta_params, config)
  np.testing.assert_allclose(hypers.discount, 0.990, atol=1e-3)
  np.testing.assert_allclose(hypers.entropy_weight, 0.0099, atol=1e-4)
  np.testing.assert_allclose(hypers.value_weight, 0.2475, atol=1e-3)


def test_values_stay_within_bounds():
  spec = schema.MetaParameter(
    learned=True, initial=0.6, low=0.5, high=0.9, fixed=0.8
  )
  config = dataclasses.replace(schema.MetaParameters(), discount=spec)
  np.testing.assert_allclose(
    meta_parameters.to_hypers(meta_parameters.initial(config), config).discount,
    0.6,
    rtol=1e-6,
  )
  for logit, bound in ((-50.0, 0.5), (50.0, 0.9)):
    hypers = meta_parameters.to_hypers({'discount': jnp.array(logit)}, config)
    np.testing.assert_allclose(hypers.discount, bound, rtol=1e-6)


def test_a_meta_parameter_that_is_not_learned_keeps_its_fixed_value():
  defaults = schema.MetaParameters()
  spec = dataclasses.replace(defaults.discount, learned=False)
  config = dataclasses.replace(defaults, discount=spec)
  meta_params = meta_parameters.initial(config)
  assert 'discount' not in meta_params
  assert meta_parameters.to_hypers(meta_params, config).discount == 0.995


def test_gradient_is_the_sigmoids():
  config = schema.MetaParameters()
  gradient = jax.grad(
    lambda logit: (
      meta_parameters.to_hypers(
        {'entropy_weight': logit}, config
      ).entropy_weight
    )
  )(jnp.array(0.0))
  np.testing.assert_allclose(gradient, 0.01 * 0.25, rtol=1e-6)
