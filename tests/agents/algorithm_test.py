"""The engine's parts as the configuration puts them together, in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from bmg import engine
from bmg.agents import (
  algorithm,
  losses,
  meta_parameters,
  objectives,
  optimizers,
)
from bmg.configs import schema
from tests.agents import small_agent

_IMAGE = np.zeros((1, small_agent.FEATURES), np.uint8)


class _Run:
  """A training run of the small agent, and its parts in plain code."""

  def __init__(self, **meta):
    self.config = small_agent.config('adam', **meta)
    network = small_agent.network()
    learning = algorithm.make_learning(self.config, network)
    self.state = jax.tree.map(
      lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x,
      learning.init(jax.random.key(0), _IMAGE),
    )
    self.step = jax.jit(learning.step)
    context_size = len(self.config.meta.context.inputs)
    self.parametrization = meta_parameters.make_parametrization(
      self.config.meta,
      small_agent.HEADS,
      context_size * self.config.meta.context.length,
    )
    self.objectives = objectives.make_objectives(
      self.config, network, self.parametrization
    )
    optimizer = optimizers.make_optimizer(
      self.config.optimizer, self.config.total_updates
    )
    self.update = small_agent.plain_update(
      self.objectives.inner_loss, optimizer
    )
    self.plain = small_agent.plain_update(self.objectives.plain_loss, optimizer)

  def agent(self):
    return engine.AgentState(self.state.params, self.state.opt_state)

  def apply(self, agent, batches):
    return small_agent.apply_all(
      self.update, agent, self.state.meta.params, batches
    )

  def expected_gradient(self, target, inner, final):
    """By finite differences, along one direction that is not special."""
    direction = jax.tree.map(
      lambda x: jnp.cos(jnp.arange(x.size) + 1.0).reshape(1, *x.shape),
      self.state.meta.params,
    )
    agent = self.agent()

    def loss(meta_params):
      params = small_agent.apply_all(
        self.update, agent, meta_params, inner
      ).params
      return self.objectives.matching(target.params, params, final)[0]

    difference = jax.jit(small_agent.directional_differences, static_argnums=0)(
      loss, self.state.meta.params, direction
    )
    return float(difference[0]), jax.tree.map(lambda x: x[0], direction)


def _assert_gradient(state, expected):
  value, direction = expected
  products = jax.tree.map(
    lambda g, d: jnp.sum(g * d), state.meta_gradient, direction
  )
  actual = sum(jax.tree.leaves(products))
  assert value != 0.0
  np.testing.assert_allclose(actual, value, rtol=2e-5)


def _assert_same(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
    actual,
    expected,
  )


def _batches(first, number):
  return [small_agent.batch(first + i) for i in range(number)]


def test_online_targets_are_the_agents_own_next_updates():
  with enable_x64():
    run = _Run(inner_updates=2, bootstrap_length=3, target_data='online')
    own = _batches(0, 4)
    at_k = run.apply(run.agent(), own[:2])
    at_end = run.apply(at_k, own[2:])
    target = run.plain(at_end, None, own[-1])
    expected = run.expected_gradient(target, own[:2], own[-1])
    state, _ = run.step(run.state, algorithm.StepData(own, []))
    _assert_gradient(state, expected)
    _assert_same(state.params, at_end.params)
    _assert_same(state.opt_state, at_end.opt_state)
    assert state.num_updates == 4


def test_targets_can_stay_on_the_last_batch():
  with enable_x64():
    run = _Run(inner_updates=2, bootstrap_length=3, target_data='batch')
    own = _batches(0, 2)
    at_k = run.apply(run.agent(), own)
    target = run.plain(run.apply(at_k, [own[1]] * 2), None, own[1])
    expected = run.expected_gradient(target, own, own[1])
    state, _ = run.step(run.state, algorithm.StepData(own, []))
    _assert_gradient(state, expected)
    _assert_same(state.params, at_k.params)


@pytest.mark.parametrize('kind', ['grounded', 'meta_learned', 'plain'])
def test_targets_on_fresh_draws_leave_the_agent_alone(kind):
  with enable_x64():
    run = _Run(bootstrap_length=2, target=kind)
    own, fresh = _batches(0, 1), _batches(10, 1)
    at_k = run.apply(run.agent(), own)
    first = run.plain if kind == 'plain' else run.update
    last = run.update if kind == 'meta_learned' else run.plain
    w = run.state.meta.params
    target = last(first(at_k, w, fresh[0]), w, own[0])
    expected = run.expected_gradient(target, own, own[0])
    state, _ = run.step(run.state, algorithm.StepData(own, fresh))
    _assert_gradient(state, expected)
    _assert_same(state.params, at_k.params)


def test_a_target_optimiser_of_its_own_keeps_its_statistics():
  with enable_x64():
    spec = schema.TargetOptimizer('rmsprop', learning_rate=0.02)
    run = _Run(target_optimizer=spec)
    optimizer = optimizers.make_target_optimizer(spec)
    plain = small_agent.plain_update(run.objectives.plain_loss, optimizer)
    target_state = optimizer.init(run.state.params)
    for data in _batches(0, 3):
      at_k = run.apply(run.agent(), [data])
      target = plain(engine.AgentState(at_k.params, target_state), None, data)
      target_state = target.opt_state
      expected = run.expected_gradient(target, [data], data)
      run.state, _ = run.step(run.state, algorithm.StepData([data], []))
      _assert_gradient(run.state, expected)
    _assert_same(run.state.meta.outer_state, target_state)


def test_updates_between_meta_updates_are_ordinary_ones():
  with enable_x64():
    run, plain_run = _Run(updates_between=2), _Run()
    own = _batches(0, 3)
    before = run.apply(run.agent(), own[:2])
    start = plain_run.state._replace(
      params=before.params, opt_state=before.opt_state
    )
    expected, _ = plain_run.step(start, algorithm.StepData(own[2:], []))
    state, _ = run.step(run.state, algorithm.StepData(own, []))
    _assert_same(state.meta, expected.meta)
    _assert_same(state.params, expected.params)
    assert state.num_updates == 3


def test_successive_meta_gradients_are_compared():
  with enable_x64():
    run = _Run()
    first, metrics = run.step(run.state, algorithm.StepData(_batches(0, 1), []))
    assert metrics['meta/grad_cosine'] == 0.0
    second, metrics = run.step(first, algorithm.StepData(_batches(1, 1), []))
    a, b = (
      np.concatenate([np.ravel(x) for x in jax.tree.leaves(s.meta_gradient)])
      for s in (first, second)
    )
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    np.testing.assert_allclose(metrics['meta/grad_cosine'], cosine, rtol=1e-6)
    assert -1.0 < cosine < 1.0


def test_a_meta_network_sees_how_the_last_updates_went():
  with enable_x64():
    run = _Run(
      inner_updates=2,
      context=schema.Context(('reward', 'td_error', 'value'), length=3),
    )
    # At its initial zero, the last layer would hide what the others do.
    run.state = run.state._replace(
      meta=run.state.meta._replace(
        params=jax.tree.map(
          lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size)).reshape(x.shape),
          run.state.meta.params,
        )
      )
    )
    own = _batches(0, 2)
    run.state, first = run.step(run.state, algorithm.StepData(own, []))
    history = run.state.context.history
    assert (history[0] == 0.0).all()
    assert (history[1:] != 0.0).all()
    np.testing.assert_allclose(
      history[1:, 0], [batch.transitions.rewards[:2].mean() for batch in own]
    )

    context = jnp.tanh(
      history / jnp.sqrt(_mean_square(history[1:], decay=0.99) + 1e-8)
    ).reshape(-1)
    own = [data._replace(context=context) for data in _batches(5, 2)]
    at_k = run.apply(run.agent(), own)
    target = run.plain(at_k, None, own[1])
    expected = run.expected_gradient(target, own, own[1])
    state, second = run.step(run.state, algorithm.StepData(_batches(5, 2), []))
    _assert_gradient(state, expected)
    assert first['meta/discount'] != second['meta/discount']


def _mean_square(rows, decay):
  weights = np.array([(1 - decay) * decay, 1 - decay])
  return weights @ np.square(rows) / weights.sum()


def test_a_matching_function_of_ones_own_and_a_stride():
  with enable_x64():
    name = 'tests.agents.small_agent:squared_values'
    run = _Run(matching=name, matching_stride=3)
    data = small_agent.batch(0)
    network = small_agent.network()
    loss, _ = run.objectives.matching(run.state.params, run.state.params, data)
    # States 0 and 3 of 0 to 3; the one after them was not acted in.
    images = data.observations[:, (0, 3)].reshape(-1, small_agent.FEATURES)
    output = network.apply(run.state.params, None, images)
    np.testing.assert_allclose(loss, jnp.sum(output.outer_values**2))


def test_without_meta_learning_all_heads_learn_with_fixed_hypers():
  with enable_x64():
    run = _Run(mode='none')
    data = small_agent.batch(0)
    fixed = small_agent.plain_update(
      run.objectives.fixed_loss,
      optimizers.make_optimizer(run.config.optimizer, run.config.total_updates),
    )
    expected = fixed(run.agent(), None, data)
    state, metrics = run.step(run.state, algorithm.StepData([data], []))
    _assert_same(state.params, expected.params)
    _assert_same(state.meta, run.state.meta)
    assert metrics['meta/discount'] == np.float32(0.995)
    assert metrics['loss/auxiliary'] != 0.0


@pytest.mark.parametrize(
  'meta',
  [
    {'mode': 'none'},
    {'mode': 'mg'},
    {'target_optimizer': schema.TargetOptimizer('adam')},
    {'context': schema.Context(('reward', 'value'))},
  ],
)
def test_the_state_keeps_its_types(meta):
  # If only a weak type changed, the next step would be compiled anew.
  config = small_agent.config('adam', **meta)
  learning = algorithm.make_learning(config, small_agent.network())
  data = algorithm.StepData(_batches(0, 1), [])
  state = learning.init(jax.random.key(0), _IMAGE)
  next_state, _ = jax.eval_shape(learning.step, state, data)

  def kind(x):
    return x.shape, x.dtype, x.weak_type

  assert jax.tree.map(kind, state) == jax.tree.map(kind, next_state)


def test_the_auxiliary_heads_hypers_have_names_of_their_own():
  run = _Run()
  _, metrics = run.step(run.state, algorithm.StepData(_batches(0, 1), []))
  weights = {f'{term}_weight' for term in ('policy', 'value', 'entropy')}
  weights |= {f'{name}_aux1' for name in weights}
  for group in ('meta', 'travel', 'step'):
    names = {name for name in metrics if name.startswith(f'{group}/')}
    assert {name for name in names if 'weight' in name} == {
      f'{group}/{name}' for name in weights
    }
  for name in losses.HeadTerms._fields:
    assert f'loss/{name}' in metrics


def test_the_rate_of_rejection_is_that_of_the_trust_region():
  run = _Run()
  _, metrics = run.step(run.state, algorithm.StepData(_batches(0, 1), []))
  assert 0.0 < metrics['loss/rejected'] < 1.0
  loss = dataclasses.replace(run.config.loss, trust_region=0.0)
  config = dataclasses.replace(run.config, loss=loss)
  learning = algorithm.make_learning(config, small_agent.network())
  _, metrics = jax.jit(learning.step)(
    run.state, algorithm.StepData(_batches(0, 1), [])
  )
  assert metrics['loss/rejected'] == 0.0


def test_travel_and_the_share_of_a_step_are_reported():
  # Adam's first step is nominal unless epsilon is large beside the gradient.
  with enable_x64():
    run = _Run(learning_rate=0.1, epsilon=1e-12)
    state, metrics = run.step(run.state, algorithm.StepData(_batches(0, 1), []))
    assert metrics['travel/discount'] == 0.0
    for name in ('discount', 'discount_aux1', 'entropy_weight'):
      np.testing.assert_allclose(metrics[f'step/{name}'], 1.0, rtol=1e-5)
    _, metrics = run.step(state, algorithm.StepData(_batches(1, 1), []))
    travel = state.meta.params['discount'] - run.state.meta.params['discount']
    np.testing.assert_allclose(metrics['travel/discount'], travel[0], rtol=1e-6)
    np.testing.assert_allclose(abs(travel), 0.1, rtol=1e-5)
    dead = _Run(learning_rate=0.1, epsilon=1e3)
    _, metrics = dead.step(dead.state, algorithm.StepData(_batches(0, 1), []))
    assert 0.0 < metrics['step/discount'] < 1e-4


def test_a_meta_networks_travel_is_that_of_its_logits():
  with enable_x64():
    run = _Run(
      context=schema.Context(('reward',), length=2), learning_rate=0.01
    )
    state = run.state
    for index in range(3):
      before = state
      state, metrics = run.step(
        state, algorithm.StepData(_batches(index, 1), [])
      )
    context = jnp.tanh(
      before.context.history
      / jnp.sqrt(before.context.mean_square / before.context.weight + 1e-8)
    ).reshape(-1)
    hypers = run.parametrization.hypers(before.meta.params, context)
    value, start = hypers.discount[0], 0.7
    np.testing.assert_allclose(
      metrics['travel/discount'],
      jnp.log(value / (1 - value)) - np.log(start / (1 - start)),
      rtol=1e-5,
    )
