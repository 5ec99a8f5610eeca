"""Meta-gradients against central finite differences, in float64.

Every meta-parameter of every head, every matching function, K in {1, 2, 3},
through clipping and every optimiser; every kind of target with every L in
{1, 2, 4} at K = 2, and some of these pairs at the others.
"""

import dataclasses

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import enable_x64

from bmg import engine
from bmg.agents import (
  algorithm,
  matching,
  meta_parameters,
  objectives,
  optimizers,
  types,
)
from bmg.configs import schema
from bmg.configs.schema.meta import MATCHING
from tests.agents import small_agent

_LENGTHS = (1, 2, 4)
_TARGETS = ('grounded', 'meta_learned', 'plain')


class _Problem:
  """An agent some updates old, its objectives, and data."""

  def __init__(self, config):
    network = self.network = small_agent.network()
    self.config = config
    self.parametrization = meta_parameters.make_parametrization(
      config.meta, small_agent.HEADS
    )
    self.objectives = objectives.make_objectives(
      config, network, self.parametrization
    )
    self.optimizer = optimizers.make_optimizer(
      config.optimizer, config.total_updates
    )
    self.meta_params = self.parametrization.init(jax.random.key(1))
    # The heads' meta-parameters start alike; a test should tell them apart.
    self.meta_params = jax.tree.map(
      lambda x: x + jnp.linspace(0.0, 0.5, small_agent.HEADS), self.meta_params
    )
    params = network.init(
      jax.random.key(0), jnp.zeros((1, small_agent.FEATURES), jnp.uint8)
    )
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    self.learned = small_agent.plain_update(
      self.objectives.inner_loss, self.optimizer
    )
    self.plain = small_agent.plain_update(
      self.objectives.plain_loss, self.optimizer
    )
    # A few updates first, so that the optimiser's statistics are not zero.
    self.agent = small_agent.apply_all(
      self.learned,
      engine.AgentState(params, self.optimizer.init(params)),
      self.meta_params,
      [small_agent.batch(100), small_agent.batch(101)],
    )
    self.inner = [
      small_agent.batch(i) for i in range(config.meta.inner_updates)
    ]
    self.fresh = [small_agent.batch(50 + i) for i in range(max(_LENGTHS) - 1)]

  def final_params(self, meta_params):
    """x^(K) as a function of w, in plain code."""
    return small_agent.apply_all(
      self.learned, self.agent, meta_params, self.inner
    ).params

  def target(self, kind, length):
    """The target's parameters, in plain code."""
    agent = small_agent.apply_all(
      self.learned, self.agent, self.meta_params, self.inner
    )
    first = self.plain if kind == 'plain' else self.learned
    last = self.learned if kind == 'meta_learned' else self.plain
    agent = small_agent.apply_all(
      first, agent, self.meta_params, self.fresh[: length - 1]
    )
    return last(agent, self.meta_params, self.inner[-1]).params

  def bootstrap(self, kind):
    """The engine's bootstrap of that kind."""
    update = engine.gradient_update(self.objectives.inner_loss, self.optimizer)
    plain = engine.gradient_update(self.objectives.plain_loss, self.optimizer)
    if kind == 'plain':
      return engine.plain_bootstrap(plain)
    if kind == 'meta_learned':
      return engine.learned_bootstrap(update)
    return engine.grounded_bootstrap(update, plain)

  def all_matches(self, target, params, data):
    """[6]: every matching function at once."""
    images = data.observations[:, :-1].reshape(-1, small_agent.FEATURES)
    points = [
      matching.Point(x, self.network.apply(x, None, images).outer)
      for x in (target, params)
    ]
    matches = [
      matching.get_function(name)(*points, self.config.meta)
      for name in MATCHING
    ]
    return jnp.stack(matches), None


_SOME_CASES = [('grounded', 2), ('meta_learned', 1), ('plain', 4)]
_ALL_CASES = [(kind, length) for kind in _TARGETS for length in _LENGTHS]


@pytest.mark.parametrize(
  ('inner_updates', 'optimizer', 'cases'),
  [
    (1, 'rmsprop', _SOME_CASES),
    (2, 'rmsprop', _ALL_CASES),
    (3, 'rmsprop', _SOME_CASES),
    (2, 'adam', _SOME_CASES),
    (2, 'sgd', _SOME_CASES),
  ],
)
def test_bootstrapped(inner_updates, optimizer, cases):
  with enable_x64():
    problem = _Problem(
      small_agent.config(optimizer, inner_updates=inner_updates)
    )

    def outer_losses(meta_params):
      update = engine.gradient_update(
        problem.objectives.inner_loss, problem.optimizer
      )
      final, _ = engine.apply_updates(
        update, problem.agent, meta_params, problem.inner
      )
      values = []
      for kind, length in cases:
        loss = engine.bootstrapped_loss(
          problem.bootstrap(kind), problem.all_matches
        )
        data = engine.MetaData(
          problem.inner, problem.fresh[: length - 1], problem.inner[-1]
        )
        values.append(
          loss.apply(problem.agent, final, meta_params, (), data)[0]
        )
      return jnp.stack(values)

    targets = [problem.target(*case) for case in cases]
    targets = jax.tree.map(lambda *x: jnp.stack(x), *targets)

    def losses_at(meta_params):
      params = problem.final_params(meta_params)
      return jax.vmap(
        lambda target: problem.all_matches(target, params, problem.inner[-1])[0]
      )(targets)

    # {name: [case, matching function, head]}.
    actual = jax.jit(jax.jacrev(outer_losses))(problem.meta_params)
    # [meta-parameter and head, case, matching function].
    expected = jax.jit(
      lambda w: small_agent.directional_differences(
        losses_at, w, small_agent.basis(w)
      )
    )(problem.meta_params)
    flat = jnp.concatenate([actual[name] for name in sorted(actual)], axis=-1)
    assert flat.shape == (
      len(cases),
      len(MATCHING),
      len(types.Hypers._fields) * small_agent.HEADS,
    )
    expected = jnp.moveaxis(expected, 0, -1)
    scale = jnp.max(jnp.abs(expected), axis=-1, keepdims=True)
    np.testing.assert_allclose(
      flat / scale, expected / scale, rtol=2e-5, atol=2e-6
    )
    assert (flat != 0.0).all(), 'a meta-parameter has no gradient at all'


@pytest.mark.parametrize(
  ('inner_updates', 'kl_weight'), [(1, 0.5), (2, 0.5), (3, 0.5), (2, 0.0)]
)
def test_standard(inner_updates, kl_weight):
  with enable_x64():
    problem = _Problem(
      small_agent.config(
        mode='mg', inner_updates=inner_updates, outer_kl_weight=kl_weight
      )
    )
    data = engine.MetaData(problem.inner, [], problem.inner[-1])
    # The outer objective's own gradient is a semi-gradient, with constant
    # targets; x^(K)(w) is what finite differences must move.
    params = problem.final_params(problem.meta_params)

    def outer_loss(params, frozen_params):
      loss, _ = problem.objectives.plain_loss(
        params, frozen_params, None, data.final
      )
      change, _ = problem.objectives.policy_change(
        problem.agent.params, params, data.final
      )
      return loss + kl_weight * change

    gradient = jax.jit(jax.grad(outer_loss))(params, params)

    def projected(meta_params):
      products = jax.tree.map(
        lambda x, g: jnp.sum(x * g), problem.final_params(meta_params), gradient
      )
      return sum(jax.tree.leaves(products))

    expected = jax.jit(
      lambda w: small_agent.directional_differences(
        projected, w, small_agent.basis(w)
      )
    )(problem.meta_params)
    learner = engine.meta_learner(
      engine.gradient_update(problem.objectives.inner_loss, problem.optimizer),
      algorithm._make_outer_loss(
        problem.config, problem.objectives, None, problem.optimizer
      ),
      optax.sgd(1.0),
    )
    meta = learner.init(problem.meta_params, params)
    output = jax.jit(learner.step)(problem.agent, meta, data)
    actual, _ = jax.flatten_util.ravel_pytree(output.meta_gradient)
    scale = jnp.max(jnp.abs(expected))
    np.testing.assert_allclose(
      actual / scale, expected / scale, rtol=1e-5, atol=1e-6
    )
    assert (actual != 0.0).all()


def test_the_policy_change_is_the_kl_from_the_old_policy():
  with enable_x64():
    problem = _Problem(small_agent.config())
    data = problem.inner[0]
    old, new = problem.agent.params, problem.final_params(problem.meta_params)
    network = small_agent.network()
    images = data.observations[:, :-1].reshape(-1, small_agent.FEATURES)
    p, q = (
      jax.nn.softmax(network.apply(params, None, images).main.logits)
      for params in (new, old)
    )
    expected = np.mean(np.sum(p * np.log(p / q), axis=-1))
    actual, _ = problem.objectives.policy_change(old, new, data)
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


@pytest.mark.parametrize('inner_updates', [1, 2])
def test_sgd_target_with_l2_matching_is_the_standard_meta_gradient(
  inner_updates,
):
  # Paper, section 3: BMG(SGD with step 1/2, L2, L = 1) = MG (= STACX).
  with enable_x64():
    gradients = []
    for meta in (
      {
        'mode': 'bmg',
        'matching': 'l2',
        'target_optimizer': schema.TargetOptimizer('sgd', learning_rate=0.5),
      },
      {'mode': 'mg'},
    ):
      problem = _Problem(
        small_agent.config(inner_updates=inner_updates, **meta)
      )
      learning = algorithm.make_learning(problem.config, small_agent.network())
      state = _state(problem, learning)
      data = algorithm.StepData(problem.inner, [])
      state, _ = jax.jit(learning.step)(state, data)
      gradients.append(state.meta_gradient)
    for name, gradient in gradients[0].items():
      np.testing.assert_allclose(
        gradient, gradients[1][name], rtol=1e-10, atol=1e-16
      )


def _state(problem, learning):
  state = learning.init(
    jax.random.key(0), jnp.zeros((1, small_agent.FEATURES), jnp.uint8)
  )
  return state._replace(
    params=problem.agent.params,
    opt_state=problem.agent.opt_state,
    meta=state.meta._replace(
      params=jax.tree.map(
        lambda x, new: new.astype(x.dtype),
        state.meta.params,
        problem.meta_params,
      )
    ),
  )


def test_inner_update_is_the_same_with_and_without_meta_learning():
  # With every meta-parameter at its fixed value, the update that the
  # meta-learned path makes is that with fixed hyper-parameters.
  with enable_x64():
    parameters = {
      spec.name: schema.MetaParameter(
        learned=True, initial=0.5, low=0.0, high=1.0, fixed=0.5
      )
      for spec in dataclasses.fields(schema.MetaParameters)
    }
    problem = _Problem(
      small_agent.config(parameters=schema.MetaParameters(**parameters))
    )
    meta_params = problem.parametrization.init(jax.random.key(1))
    data = problem.inner[0]
    with_meta, _ = engine.gradient_update(
      problem.objectives.inner_loss, problem.optimizer
    )(problem.agent, meta_params, data)
    without = small_agent.plain_update(
      problem.objectives.fixed_loss, problem.optimizer
    )(problem.agent, None, data)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15),
      with_meta.params,
      without.params,
    )


def test_the_plain_objective_is_that_of_the_main_policy_and_its_outer_critic():
  with enable_x64():
    problem = _Problem(small_agent.config())
    gradient, _ = jax.grad(problem.objectives.plain_loss, has_aux=True)(
      problem.agent.params, problem.agent.params, None, problem.inner[0]
    )
    # Linear layers in order: torso, policies, values, outer value.
    moved = {name for name, x in gradient.items() if (x['w'] != 0.0).any()}
    assert moved == {'linear', 'linear_1', 'linear_5'}
