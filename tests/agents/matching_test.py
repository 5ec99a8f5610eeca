"""Matching functions against NumPy, and how they are named."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from bmg.agents import matching, types
from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.configs.schema.meta import MATCHING
from tests.agents import small_agent

_META = schema.Meta(
  policy_matching_weight=2.0,
  value_matching_weight=0.5,
  matching_reduction='mean',
)


def _point(probabilities, values, params):
  return matching.Point(
    params,
    types.HeadOutput(jnp.log(jnp.array(probabilities)), jnp.array(values)),
  )


_TARGET = _point([[0.5, 0.5], [0.9, 0.1]], [1.0, 2.0], {'w': jnp.ones(3)})
_POINT = _point([[0.25, 0.75], [0.9, 0.1]], [1.5, 4.0], {'w': jnp.zeros(3)})
# Of the first state; the policies agree in the second.
_KL = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
_REVERSE_KL = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
_VALUE = (0.5**2 + 2.0**2) / 2


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('kl', 2.0 * _KL / 2),
    ('reverse_kl', 2.0 * _REVERSE_KL / 2),
    ('symmetric_kl', 2.0 * (_KL + _REVERSE_KL) / 2),
    ('value', 0.5 * _VALUE),
    ('kl_value', 2.0 * _KL / 2 + 0.5 * _VALUE),
    ('l2', 3.0),
  ],
)
def test_by_hand(name, expected):
  distance = matching.get_function(name)(_TARGET, _POINT, _META)
  np.testing.assert_allclose(distance, expected, rtol=1e-5)


@pytest.mark.parametrize('name', sorted(set(MATCHING) - {'l2'}))
def test_a_sum_over_states_is_their_number_times_the_mean(name):
  function = matching.get_function(name)
  total = dataclasses.replace(_META, matching_reduction='sum')
  np.testing.assert_allclose(
    function(_TARGET, _POINT, total),
    2 * function(_TARGET, _POINT, _META),
    rtol=1e-6,
  )


@pytest.mark.parametrize('name', MATCHING)
def test_what_the_configuration_allows_exists_and_is_zero_at_the_target(name):
  distance = matching.get_function(name)(_TARGET, _TARGET, _META)
  np.testing.assert_allclose(distance, 0.0, atol=1e-6)


def test_a_function_of_ones_own_is_found_by_its_path():
  function = matching.get_function('tests.agents.small_agent:squared_values')
  assert function is small_agent.squared_values


@pytest.mark.parametrize('path', ['bmg.agents.matching:k', 'no.such.module:kl'])
def test_what_cannot_be_imported_is_named(path):
  with pytest.raises(checks.ConfigError, match=path) as error:
    matching.get_function(path)
  assert error.value.field == 'meta.matching'
