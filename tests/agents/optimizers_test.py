"""Optimisers: known steps, and finite derivatives where libraries have none."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents import optimizers
from configs import schema


@pytest.mark.parametrize('norm', [0.1, 0.5, 7.0])
def test_clipping_equals_optax(norm):
  tree = {'a': jnp.array([3.0, 4.0]) * norm / 5.0, 'b': jnp.zeros(2)}
  ours, theirs = (
    clip(0.5)
    for clip in (optimizers.clip_by_global_norm, optax.clip_by_global_norm)
  )
  actual, _ = ours.update(tree, ours.init(tree))
  expected, _ = theirs.update(tree, theirs.init(tree))
  np.testing.assert_allclose(actual['a'], expected['a'], rtol=1e-6)


@pytest.mark.parametrize('name', ['rmsprop', 'adam', 'sgd'])
@pytest.mark.parametrize('gradient', [[0.0, 0.0], [0.0, 1.0], [3.0, -4.0]])
def test_derivative_is_finite_at_zero_gradients(name, gradient):
  config = schema.Optimizer(name=name, schedule='constant')
  optimizer = optimizers.make_optimizer(config, total_updates=10)
  params = jnp.ones(2)

  def moved(gradient):
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return updates

  jacobian = jax.jacrev(moved)(jnp.array(gradient))
  assert np.all(np.isfinite(jacobian))
  assert np.any(jacobian != 0.0)


def test_rmsprop_step_by_hand():
  config = schema.Optimizer(
    learning_rate=0.1,
    max_grad_norm=1e6,
    decay=0.9,
    epsilon=0.01,
    schedule='constant',
  )
  optimizer = optimizers.make_optimizer(config, total_updates=10)
  params = jnp.zeros(1)
  updates, _ = optimizer.update(
    jnp.array([2.0]), optimizer.init(params), params
  )
  # nu = 0.1 * 2^2 = 0.4; step = -0.1 * 2 / sqrt(0.4 + 0.01).
  np.testing.assert_allclose(updates, [-0.2 / np.sqrt(0.41)], rtol=1e-6)


def test_linear_schedule_reaches_zero():
  config = schema.Optimizer(name='sgd', learning_rate=1.0, max_grad_norm=1e6)
  optimizer = optimizers.make_optimizer(config, total_updates=4)
  params = jnp.zeros(1)
  state, steps = optimizer.init(params), []
  for _ in range(6):
    updates, state = optimizer.update(jnp.array([1.0]), state, params)
    steps.append(float(updates[0]))
  np.testing.assert_allclose(steps, [-1.0, -0.75, -0.5, -0.25, 0.0, 0.0])
