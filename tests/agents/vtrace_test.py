"""V-trace against hand-computed numbers and its defining sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from agents import vtrace


def _targets_by_definition(
  values, rewards, discounts, ratios, trace_lambda, leak, rho_bar, c_bar
):
  """Espeholt et al. (2018), equation 1: an explicit double sum of products."""
  num_steps = len(rewards)
  rhos = [leak * min(rho_bar, e) + (1 - leak) * e for e in ratios]
  cuts = [
    trace_lambda * (leak * min(c_bar, e) + (1 - leak) * e) for e in ratios
  ]
  targets = []
  for s in range(num_steps):
    target = values[s]
    for t in range(s, num_steps):
      weight = 1.0
      for i in range(s, t):
        weight *= discounts[i] * cuts[i]
      bootstrap = discounts[t] * values[t + 1]
      target += weight * rhos[t] * (rewards[t] + bootstrap - values[t])
    targets.append(target)
  return np.array(targets)


def _random_sequence(rng, num_steps):
  return dict(
    values=rng.normal(size=num_steps + 1),
    rewards=rng.normal(size=num_steps),
    discounts=0.9 * (rng.random(num_steps) > 0.2),
    ratios=np.exp(rng.normal(size=num_steps)),
  )


def test_two_steps_by_hand():
  # rho = (1, 0.5), c = (1, 0.5), discount 0.5.
  # delta_1 = 0.5 * (4 + 0.5 * 8 - 2) = 3, v_1 = 2 + 3 = 5.
  # delta_0 = 1 * (1 + 0.5 * 2 - 1) = 1, v_0 = 1 + 1 + 0.5 * 1 * 3 = 3.5.
  output = vtrace.leaky_vtrace(
    values=jnp.array([1.0, 2.0, 8.0]),
    rewards=jnp.array([1.0, 4.0]),
    discounts=jnp.array([0.5, 0.5]),
    ratios=jnp.array([2.0, 0.5]),
  )
  np.testing.assert_allclose(output.targets, [3.5, 5.0])
  np.testing.assert_allclose(output.rhos, [1.0, 0.5])
  # q_0 = 1 + 0.5 * v_1, q_1 = 4 + 0.5 * V_2.
  np.testing.assert_allclose(output.q_estimates, [3.5, 8.0])


@pytest.mark.parametrize('trace_lambda', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('leak', [0.0, 0.4, 1.0])
@pytest.mark.parametrize(('rho_bar', 'c_bar'), [(1.0, 1.0), (2.0, 0.5)])
def test_matches_the_defining_sum(trace_lambda, leak, rho_bar, c_bar):
  rng = np.random.default_rng(0)
  for num_steps in (1, 2, 7):
    data = _random_sequence(rng, num_steps)
    options = (trace_lambda, leak, rho_bar, c_bar)
    with enable_x64():
      output = vtrace.leaky_vtrace(
        *(jnp.asarray(x) for x in data.values()), *options
      )
    expected = _targets_by_definition(*data.values(), *options)
    np.testing.assert_allclose(output.targets, expected, rtol=1e-10)


def test_on_policy_targets_are_lambda_returns():
  rng = np.random.default_rng(1)
  data = _random_sequence(rng, 9)
  data['ratios'] = np.ones(9)
  trace_lambda = 0.8
  with enable_x64():
    targets = vtrace.leaky_vtrace(
      *(jnp.asarray(x) for x in data.values()), trace_lambda
    ).targets
  expected = np.zeros(9)
  following = data['values'][-1]
  for t in reversed(range(9)):
    mixed = (1 - trace_lambda) * data['values'][t + 1]
    mixed += trace_lambda * following
    following = data['rewards'][t] + data['discounts'][t] * mixed
    expected[t] = following
  np.testing.assert_allclose(targets, expected, rtol=1e-10)


def test_nothing_flows_across_an_episode_end():
  rng = np.random.default_rng(2)
  data = _random_sequence(rng, 6)
  data['discounts'][2] = 0.0

  def first_target(values):
    return vtrace.leaky_vtrace(values, *list(data.values())[1:]).targets[0]

  gradient = jax.grad(first_target)(jnp.asarray(data['values'], jnp.float32))
  np.testing.assert_array_equal(gradient[3:], 0.0)
  assert np.all(gradient[:1] != 0.0)


def test_gradient_reaches_discount_lambda_and_leak():
  # A library default that stops targets would silently kill these.
  data = _random_sequence(np.random.default_rng(3), 5)

  def total(discount, trace_lambda, leak):
    return vtrace.leaky_vtrace(
      data['values'],
      data['rewards'],
      jnp.ones(5) * discount,
      data['ratios'],
      trace_lambda,
      leak,
    ).targets.sum()

  gradients = jax.grad(total, argnums=(0, 1, 2))(0.9, 0.9, 0.5)
  assert all(abs(g) > 1e-3 for g in gradients)
