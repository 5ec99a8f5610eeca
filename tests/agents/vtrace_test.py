"""V-trace against hand-computed numbers and its defining sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from bmg.agents import vtrace

_leaky_vtrace = jax.jit(vtrace.leaky_vtrace)


def _targets_by_definition(
  values,
  rewards,
  discounts,
  ratios,
  trace_lambda,
  leak,
  cut_leak,
  trusted,
  rho_bar,
  c_bar,
):
  """Espeholt et al. (2018), equation 1: an explicit double sum of products.

  The sum goes up to the first state that is not trusted (LASER, section 4).
  """
  num_steps = len(rewards)
  rhos = [leak * min(rho_bar, e) + (1 - leak) * e for e in ratios]
  cuts = [
    trace_lambda * (cut_leak * min(c_bar, e) + (1 - cut_leak) * e)
    for e in ratios
  ]
  targets = []
  for s in range(num_steps):
    target = values[s]
    for t in range(s, num_steps):
      if not trusted[t]:
        break
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


def test_a_cut_leak_of_its_own_by_hand():
  # As above, but the trace is not clipped, c = (2, 0.5), and the weights half:
  # rho = (1.5, 0.5). delta = (1.5, 3), v_0 = 1 + 1.5 + 0.5 * 2 * 3.
  output = vtrace.leaky_vtrace(
    values=jnp.array([1.0, 2.0, 8.0]),
    rewards=jnp.array([1.0, 4.0]),
    discounts=jnp.array([0.5, 0.5]),
    ratios=jnp.array([2.0, 0.5]),
    leak=0.5,
    cut_leak=0.0,
  )
  np.testing.assert_allclose(output.targets, [5.5, 5.0])
  np.testing.assert_allclose(output.rhos, [1.5, 0.5])


def test_an_untrusted_state_by_hand():
  # On-policy and undiscounted, so that targets are plain sums of rewards. The
  # first two returns end in state 2, with its value of 30.
  output = vtrace.leaky_vtrace(
    values=jnp.array([10.0, 20.0, 30.0, 40.0, 50.0]),
    rewards=jnp.array([1.0, 2.0, 3.0, 4.0]),
    discounts=jnp.ones(4),
    ratios=jnp.ones(4),
    trusted=jnp.array([1.0, 1.0, 0.0, 1.0]),
  )
  np.testing.assert_allclose(output.targets, [33.0, 32.0, 30.0, 54.0])
  # Also the advantage before it bootstraps from there: q_1 = 2 + 30.
  np.testing.assert_allclose(output.q_estimates, [33.0, 32.0, 57.0, 54.0])


@pytest.mark.parametrize('trace_lambda', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('leak', [0.0, 0.4, 1.0])
@pytest.mark.parametrize('cut_leak', [None, 0.0, 0.9])
@pytest.mark.parametrize(('rho_bar', 'c_bar'), [(1.0, 1.0), (2.0, 0.5)])
def test_matches_the_defining_sum(trace_lambda, leak, cut_leak, rho_bar, c_bar):
  rng = np.random.default_rng(0)
  for num_steps in (1, 2, 7):
    data = _random_sequence(rng, num_steps)
    for trusted in (None, rng.random(num_steps) > 0.3):
      with enable_x64():
        output = _leaky_vtrace(
          *data.values(),
          trace_lambda,
          leak,
          cut_leak,
          None if trusted is None else trusted.astype(float),
          rho_bar,
          c_bar,
        )
      expected = _targets_by_definition(
        *data.values(),
        trace_lambda,
        leak,
        leak if cut_leak is None else cut_leak,
        np.ones(num_steps) if trusted is None else trusted,
        rho_bar,
        c_bar,
      )
      np.testing.assert_allclose(output.targets, expected, rtol=1e-10)
      following = np.append(expected[1:], data['values'][-1])
      np.testing.assert_allclose(
        output.q_estimates,
        data['rewards'] + data['discounts'] * following,
        rtol=1e-10,
      )


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


def test_gradient_reaches_discount_lambda_and_both_leaks():
  # A library default that stops targets would silently kill these.
  data = _random_sequence(np.random.default_rng(3), 5)

  def total(discount, trace_lambda, leak, cut_leak):
    return vtrace.leaky_vtrace(
      data['values'],
      data['rewards'],
      jnp.ones(5) * discount,
      data['ratios'],
      trace_lambda,
      leak,
      cut_leak,
    ).targets.sum()

  gradients = jax.grad(total, argnums=(0, 1, 2, 3))(0.9, 0.9, 0.5, 0.5)
  assert all(abs(g) > 1e-3 for g in gradients)
