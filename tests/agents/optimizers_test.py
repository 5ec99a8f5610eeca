"""Optimisers: known steps, and finite derivatives where libraries have none."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bmg.agents import optimizers
from bmg.configs import schema
from bmg.engine import optimizers as engine_optimizers


@pytest.mark.parametrize('norm', [0.1, 0.5, 7.0])
def test_clipping_equals_optax(norm):
  tree = {'a': jnp.array([3.0, 4.0]) * norm / 5.0, 'b': jnp.zeros(2)}
  ours, theirs = (
    clip(0.5)
    for clip in (
      engine_optimizers.clip_by_global_norm,
      optax.clip_by_global_norm,
    )
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


def _steps(optimizer, num_steps=4):
  """Updates of two parameters under fixed, uneven gradients."""
  rng = np.random.default_rng(0)
  params = jnp.ones(2)
  state, updates = optimizer.init(params), []
  for _ in range(num_steps):
    gradient = jnp.asarray(rng.normal(size=2), jnp.float32)
    update, state = optimizer.update(gradient, state, params)
    updates.append(update)
  return np.stack(updates)


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('sgd', optax.sgd(0.1)),
    ('rmsprop', optax.rmsprop(0.1, decay=0.7, eps=1e-2)),
    ('adam', optax.adam(0.1, 0.6, 0.8, eps=1e-2, eps_root=1e-4)),
  ],
)
def test_target_optimizers_are_optaxs(name, expected):
  config = schema.TargetOptimizer(
    name=name,
    learning_rate=0.1,
    decay=0.7,
    beta1=0.6,
    beta2=0.8,
    epsilon=1e-2,
  )
  np.testing.assert_allclose(
    _steps(optimizers.make_target_optimizer(config)),
    _steps(expected),
    rtol=1e-6,
  )


def test_the_agents_optimizer_takes_the_same_steps():
  # Unclipped and not annealed; so a target may go on with the agent's own.
  for name in ('rmsprop', 'adam', 'sgd'):
    shared = dict(name=name, learning_rate=0.1, beta1=0.6, decay=0.7)
    agent = optimizers.make_optimizer(
      schema.Optimizer(schedule='constant', max_grad_norm=1e3, **shared), 10
    )
    target = optimizers.make_target_optimizer(schema.TargetOptimizer(**shared))
    np.testing.assert_allclose(_steps(agent), _steps(target), rtol=1e-6)


def test_a_target_is_clipped_only_if_so_configured():
  gradient = jnp.array([300.0, -400.0])
  for max_grad_norm, expected in ((0.0, 1.0), (50.0, 0.1), (500.5, 1.0)):
    optimizer = optimizers.make_target_optimizer(
      schema.TargetOptimizer(
        name='sgd', learning_rate=0.5, max_grad_norm=max_grad_norm
      )
    )
    update, _ = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_allclose(update, -0.5 * expected * gradient, rtol=1e-6)


@pytest.mark.parametrize('name', ['rmsprop', 'adam', 'sgd'])
@pytest.mark.parametrize('max_grad_norm', [0.0, 0.5])
@pytest.mark.parametrize('gradient', [[0.0, 0.0], [0.0, 1.0], [3.0, -4.0]])
def test_a_targets_derivative_is_finite_too(name, max_grad_norm, gradient):
  optimizer = optimizers.make_target_optimizer(
    schema.TargetOptimizer(name=name, max_grad_norm=max_grad_norm)
  )
  state = optimizer.init(jnp.ones(2))
  jacobian = jax.jacrev(lambda g: optimizer.update(g, state)[0])(
    jnp.array(gradient)
  )
  assert np.all(np.isfinite(jacobian))
  assert np.any(jacobian != 0.0)


def test_the_meta_optimizer_clips_then_takes_an_adam_step():
  config = schema.Meta(max_grad_norm=0.3, epsilon=0.2)
  optimizer = optimizers.make_meta_optimizer(config, 0.1)
  params = {'a': jnp.zeros(()), 'b': jnp.zeros(())}
  updates, _ = optimizer.update(
    {'a': jnp.array(3.0), 'b': jnp.array(-4.0)}, optimizer.init(params), params
  )
  # Clipped to (0.18, -0.24); at first Adam's moments are g and g^2.
  np.testing.assert_allclose(updates['a'], -0.1 * 0.18 / 0.38, rtol=1e-5)
  np.testing.assert_allclose(updates['b'], 0.1 * 0.24 / 0.44, rtol=1e-5)


def test_a_target_clips_the_gradient_not_the_step():
  optimizer = optimizers.make_target_optimizer(
    schema.TargetOptimizer(
      name='rmsprop', learning_rate=0.1, max_grad_norm=0.5, epsilon=0.01
    )
  )
  update, _ = optimizer.update(
    jnp.array([3.0, -4.0]), optimizer.init(jnp.ones(2))
  )
  clipped = np.array([0.3, -0.4])
  expected = -0.1 * clipped / np.sqrt(0.01 * clipped**2 + 0.01)
  np.testing.assert_allclose(update, expected, rtol=1e-5)


@pytest.mark.parametrize('name', ['rmsprop', 'adam', 'sgd'])
def test_constant_second_moments_change_no_step(name):
  config = schema.Optimizer(name=name, learning_rate=0.1, max_grad_norm=1.0)
  stopped, whole = (
    optimizers.make_optimizer(config, 10, differentiate)
    for differentiate in (False, True)
  )
  np.testing.assert_allclose(_steps(stopped), _steps(whole), rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    # -0.1 / sqrt(nu), with nu = 0.9 * 0.25 + 0.1 * 2^2.
    ('rmsprop', -0.1 / np.sqrt(0.625 + 1e-6)),
    # Both moments of the second step are divided by 1 - beta^2.
    (
      'adam',
      -0.1
      * (0.1 / (1 - 0.9**2))
      / (np.sqrt((0.999 * 0.25 + 0.001 * 4) / (1 - 0.999**2)) + 1e-6),
    ),
  ],
)
def test_constant_second_moments_have_no_derivative(name, expected):
  config = schema.Optimizer(
    name=name,
    schedule='constant',
    learning_rate=0.1,
    max_grad_norm=1e6,
    decay=0.9,
    epsilon=1e-6,
  )
  optimizer = optimizers.make_optimizer(config, 10, False)
  clip, scale, rate = optimizer.init(jnp.zeros(()))
  scale = scale._replace(nu=jnp.array(0.25))
  if name == 'adam':
    scale = scale._replace(count=jnp.array(1), mu=jnp.array(0.3))

  def step(gradient):
    return optimizer.update(gradient, (clip, scale, rate))[0]

  np.testing.assert_allclose(jax.grad(step)(2.0), expected, rtol=1e-4)


def test_adams_first_moment_carries_derivatives_to_later_steps():
  config = schema.Optimizer(name='adam', schedule='constant', max_grad_norm=1e6)
  optimizer = optimizers.make_optimizer(config, 10, False)

  def second_step(first_gradient):
    _, state = optimizer.update(first_gradient, optimizer.init(jnp.ones(())))
    return optimizer.update(jnp.array(-1.0), state)[0]

  # mu = 0.09 g - 0.1, and the larger g was, the less far the step goes up.
  assert jax.grad(second_step)(0.5) < 0.0
