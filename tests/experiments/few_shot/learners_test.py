"""Meta-gradients against central differences of plain code, in float64."""

import dataclasses

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import learners, networks, tasks

_RATE, _TARGET_RATE = 0.3, 0.2
_NUM_TASKS, _NUM_WAYS = 2, 3
_NETWORK = schema.Network(hidden=(6,))
_SIGMA = 0.7


@pytest.fixture(autouse=True)
def _float64():
  with enable_x64():
    yield


def _config(**fields):
  return schema.Learner(
    **{
      'inner_learning_rate': _RATE,
      'target_learning_rate': _TARGET_RATE,
      'matching_sigma': _SIGMA,
    }
    | fields
  )


@jax.jit
def _perturbed(params):
  # Biases of zero would put examples onto the kinks of ReLUs.
  return jax.tree.map(
    lambda x: x + 0.1 * jax.random.normal(jax.random.key(3), x.shape), params
  )


def _initial_params(network):
  return _perturbed(jax.jit(network.init)(jax.random.key(0)))


class _Problem:
  """A small network, some tasks, and plain code for what is expected."""

  def __init__(self, config, kind='classification'):
    self.config = config
    self.is_regression = kind == 'regression'
    num_outputs = 1 if self.is_regression else _NUM_WAYS
    self.network = networks.make_network(_NETWORK, (4,), num_outputs)
    self.objective = (
      networks.regression(_SIGMA)
      if self.is_regression
      else networks.classification()
    )
    self.params = _initial_params(self.network)
    self.tasks = tasks.Task(self._examples(7, 1), self._examples(5, 2))
    self.learner = learners.make_learner(config, self.network, self.objective)

  def _examples(self, count, seed):
    keys = jax.random.split(jax.random.key(seed))
    shape = (_NUM_TASKS, count)
    inputs = jax.random.normal(keys[0], (*shape, 4))
    if self.is_regression:
      return tasks.Examples(inputs, jax.random.normal(keys[1], (*shape, 1)))
    labels = jax.random.randint(keys[1], shape, 0, _NUM_WAYS)
    return tasks.Examples(inputs, labels)

  def loss(self, params, examples):
    outputs = self.network.apply(params, examples.inputs)
    if self.is_regression:
      return jnp.mean((outputs - examples.labels) ** 2)
    chosen = jax.nn.one_hot(examples.labels, _NUM_WAYS)
    return -jnp.mean(jnp.sum(chosen * jax.nn.log_softmax(outputs), axis=1))

  def descend(self, params, examples, rate, count):
    for _ in range(count):
      grads = jax.grad(self.loss)(params, examples)
      if self.config.anil:
        grads = {
          name: grads[name]
          if name == 'head'
          else jax.tree.map(jnp.zeros_like, grads[name])
          for name in grads
        }
      params = jax.tree.map(lambda x, g: x - rate * g, params, grads)
    return params

  def adapt(self, params, task):
    K = self.config.inner_updates
    return self.descend(params, task.support, _RATE, K)

  def mean(self, function, *arguments):
    """The mean over tasks of a function of a task and other arguments."""
    return jax.jit(self._mean, static_argnums=0)(function, *arguments)

  def _mean(self, function, *arguments):
    values = jax.vmap(function)(self.tasks, *arguments)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), values)

  def divergence(self, target, params, task):
    inputs = getattr(task, self.config.matching_inputs).inputs
    p, q = (self.network.apply(each, inputs) for each in (target, params))
    if self.is_regression:
      return jnp.mean((p - q) ** 2) / (2 * _SIGMA**2)
    if self.config.matching == 'reverse_kl':
      p, q = q, p
    p, q = jax.nn.softmax(p), jax.nn.softmax(q)
    return jnp.mean(jnp.sum(p * jnp.log(p / q), axis=1))

  def maml_loss(self, params):
    return self.mean(
      lambda task: self.loss(self.adapt(params, task), task.query)
    )

  def target(self, task):
    L = self.config.bootstrap_length
    adapted = self.adapt(self.params, task)
    return self.descend(adapted, task.query, _TARGET_RATE, L)

  def bmg_loss(self):
    """The matching loss at the targets of the current parameters."""
    targets = jax.jit(jax.vmap(self.target))(self.tasks)

    def matching(params, task, target):
      return self.divergence(target, self.adapt(params, task), task)

    return lambda params: self.mean(
      lambda task, target: matching(params, task, target), targets
    )

  def output(self):
    state = self.learner.init(self.params)
    return jax.jit(self.learner.step)(state, self.tasks)


def _check(problem, expected_loss, epsilon=1e-6):
  """Compares value and meta-gradient, along several directions."""
  output = problem.output()
  loss = jax.jit(expected_loss)
  np.testing.assert_allclose(
    output.outer_loss, loss(problem.params), rtol=1e-9, atol=1e-12
  )
  flat, unflatten = jax.flatten_util.ravel_pytree(problem.params)
  gradient, _ = jax.flatten_util.ravel_pytree(output.meta_gradient)
  assert gradient.dtype == np.float64
  for seed in range(4):
    direction = jax.random.normal(jax.random.key(seed), flat.shape)
    up, down = (
      loss(unflatten(flat + step * direction)) for step in (epsilon, -epsilon)
    )
    difference = (up - down) / (2 * epsilon)
    assert abs(difference) > 1e-6
    np.testing.assert_allclose(
      gradient @ direction, difference, rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize(
  ('inner_updates', 'kind'),
  [(1, 'classification'), (2, 'classification'), (2, 'regression')],
)
def test_maml(inner_updates, kind):
  config = _config(kind='maml', inner_updates=inner_updates)
  problem = _Problem(config, kind)
  _check(problem, problem.maml_loss)


@pytest.mark.parametrize('inner_updates', [1, 2])
@pytest.mark.parametrize('bootstrap_length', [1, 3])
@pytest.mark.parametrize('matching', ['kl', 'reverse_kl'])
def test_bmg(inner_updates, bootstrap_length, matching):
  config = _config(
    inner_updates=inner_updates,
    bootstrap_length=bootstrap_length,
    matching=matching,
  )
  problem = _Problem(config)
  _check(problem, problem.bmg_loss())


@pytest.mark.parametrize(
  ('kind', 'fields'),
  [
    ('classification', {'matching_inputs': 'support'}),
    ('regression', {}),
    ('classification', {'anil': True}),
  ],
)
def test_bmg_with_options(kind, fields):
  config = _config(inner_updates=2, bootstrap_length=2, **fields)
  problem = _Problem(config, kind)
  _check(problem, problem.bmg_loss())


def _assert_close(actual, expected):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12),
    dict(actual),
    dict(expected),
  )


def test_first_order_maml_has_the_gradient_at_the_adapted_parameters():
  problem = _Problem(_config(kind='maml', inner_updates=2, first_order=True))
  expected = problem.mean(
    lambda task: jax.grad(problem.loss)(
      problem.adapt(problem.params, task), task.query
    )
  )
  actual = problem.output().meta_gradient
  _assert_close(actual, expected)
  second_order = jax.jit(jax.grad(problem.maml_loss))(problem.params)
  assert not np.allclose(
    actual['head']['w'], second_order['head']['w'], rtol=1e-2
  )


def test_first_order_bmg_has_the_gradient_at_the_adapted_parameters():
  config = _config(inner_updates=2, bootstrap_length=2, first_order=True)
  problem = _Problem(config)
  expected = problem.mean(
    lambda task: jax.grad(problem.divergence, argnums=1)(
      problem.target(task), problem.adapt(problem.params, task), task
    )
  )
  _assert_close(problem.output().meta_gradient, expected)


def test_anil_adapts_the_head_alone_and_meta_learns_the_rest():
  problem = _Problem(_config(kind='maml', inner_updates=2, anil=True))
  adapt = learners.adaptation(
    problem.config, problem.network, problem.objective
  )
  final, _ = adapt(
    None, problem.params, jax.tree.map(lambda x: x[0], problem.tasks)
  )
  moved = {
    name: not all(
      np.array_equal(value, final.params[name][key])
      for key, value in module.items()
    )
    for name, module in problem.params.items()
  }
  assert moved.pop('head')
  assert not any(moved.values())
  _check(problem, problem.maml_loss)
  assert all(
    np.any(module['w'] != 0)
    for module in problem.output().meta_gradient.values()
  )


def test_target_steps_take_the_inner_rate_unless_they_have_their_own():
  same = _Problem(_config(target_learning_rate=0.0)).output()
  explicit = _Problem(_config(target_learning_rate=_RATE)).output()
  other = _Problem(_config(target_learning_rate=2 * _RATE)).output()
  assert same.outer_loss == explicit.outer_loss
  assert other.outer_loss > 1.5 * same.outer_loss


@pytest.mark.parametrize('kind', ['maml', 'bmg'])
def test_reported_loss_and_metric_are_those_of_query_sets(kind):
  problem = _Problem(_config(kind=kind, inner_updates=2))
  output = problem.output()
  np.testing.assert_allclose(
    output.outer_aux.loss, problem.maml_loss(problem.params)
  )
  logits = jax.jit(
    jax.vmap(
      lambda task: problem.network.apply(
        problem.adapt(problem.params, task), task.query.inputs
      )
    )
  )(problem.tasks)
  labels = problem.tasks.query.labels
  right = np.mean(np.argmax(logits, axis=-1) == labels, axis=1)
  np.testing.assert_allclose(output.outer_aux.metric, np.mean(right))
  evaluated = jax.jit(problem.learner.evaluate)(problem.params, problem.tasks)
  np.testing.assert_allclose(evaluated.metric, right)


def test_a_step_is_one_of_adam():
  config = dataclasses.replace(_config(), meta_learning_rate=0.01)
  problem = _Problem(config)
  output = problem.output()
  # Adam's first step is the learning rate, whatever the gradient.
  moved = output.meta.params['head']['w'] - problem.params['head']['w']
  np.testing.assert_allclose(
    moved, -0.01 * np.sign(output.meta_gradient['head']['w']), rtol=1e-2
  )
