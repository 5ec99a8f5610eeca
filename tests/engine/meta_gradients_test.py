"""The meta-gradient engine on small problems with known answers."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import enable_x64

from bmg import engine
from bmg.engine import mixed_mode


def _quadratic_loss(params, frozen_params, meta_params, batch):
  """w/2 |x - batch|^2; the plain objective (w = None) has w = 1."""
  del frozen_params
  weight = 1.0 if meta_params is None else meta_params
  loss = 0.5 * weight * jnp.sum((params - batch) ** 2)
  return loss, loss


def _squared_distance(target, params, batch):
  del batch
  return jnp.sum((target - params) ** 2), None


def _sgd_updates(learning_rate):
  optimizer = optax.sgd(learning_rate)
  return (
    engine.gradient_update(_quadratic_loss, optimizer),
    optimizer.init(jnp.zeros(2)),
  )


def test_one_meta_step_by_hand():
  # x = 1, batch = 0, lr = 0.1, w = 2: x1 = x - 0.1 w x = 0.8; the plain step
  # gives the target 0.72. d/dw (target - x1)^2 = -2 * (-0.08) * (-0.1 x)
  # = -0.016; SGD with rate 10 moves w from 2 to 2.16.
  update, opt_state = _sgd_updates(0.1)
  loss = engine.bootstrapped_loss(
    engine.grounded_bootstrap(update, update), _squared_distance
  )
  learner = engine.meta_learner(update, loss, optax.sgd(10.0))
  agent = engine.AgentState(jnp.array([1.0]), opt_state)
  output = learner.step(
    agent,
    learner.init(jnp.array(2.0), agent.params),
    engine.MetaData([jnp.zeros(1)], [], jnp.zeros(1)),
  )
  np.testing.assert_allclose(output.agent.params, [0.8], rtol=1e-6)
  np.testing.assert_allclose(output.outer_loss, 0.08**2, rtol=1e-5)
  np.testing.assert_allclose(output.meta_gradient, -0.016, rtol=1e-5)
  np.testing.assert_allclose(output.meta.params, 2.16, rtol=1e-5)


def test_target_takes_learned_steps_then_a_plain_one():
  # From 0.8: two learned steps (w = 2) on batches 1 and 3, then a plain one on
  # batch 0: 0.8 -> 0.84 -> 1.272 -> 1.1448.
  update, opt_state = _sgd_updates(0.1)
  bootstrap = engine.grounded_bootstrap(update, update)
  target = bootstrap.make(
    engine.AgentState(jnp.array([0.8]), opt_state),
    jnp.array(2.0),
    (),
    engine.MetaData([], [jnp.array([1.0]), jnp.array([3.0])], jnp.array([0.0])),
  )
  np.testing.assert_allclose(target.params, [1.1448], rtol=1e-6)
  np.testing.assert_allclose(target.agent.params, [1.272], rtol=1e-6)


def test_repeated_update_is_that_many_updates():
  update, opt_state = _sgd_updates(0.1)
  agent = engine.AgentState(jnp.array([1.0, -2.0]), opt_state)
  batches = jnp.array([[0.0, 1.0], [2.0, 0.5], [-1.0, 3.0]])

  def after(rule, data, meta_params):
    state, aux = engine.apply_updates(rule, agent, meta_params, data)
    return state.params, aux

  (params, aux), (repeated_params, (repeated_aux,)) = (
    after(update, list(batches), 1.5),
    after(engine.repeated(update, 3), [batches], 1.5),
  )
  np.testing.assert_allclose(repeated_params, params, rtol=1e-6)
  np.testing.assert_allclose(
    repeated_aux.loss_aux, [each.loss_aux for each in aux], rtol=1e-6
  )
  # Meta-gradients pass through the scan, too.
  gradients = [
    jax.grad(lambda w, rule=rule, data=data: after(rule, data, w)[0].sum())(1.5)
    for rule, data in (
      (update, list(batches)),
      (engine.repeated(update, 3), [batches]),
    )
  ]
  np.testing.assert_allclose(*gradients, rtol=1e-5)


def test_no_gradient_flows_through_the_target():
  update, opt_state = _sgd_updates(0.1)
  loss = engine.bootstrapped_loss(
    engine.grounded_bootstrap(update, update),
    # A matching function that looks at the target alone.
    lambda target, params, batch: (jnp.sum(target**2), None),
  )
  learner = engine.meta_learner(update, loss, optax.sgd(1.0))
  agent = engine.AgentState(jnp.array([1.0]), opt_state)
  output = learner.step(
    agent,
    learner.init(jnp.array(2.0), agent.params),
    engine.MetaData([jnp.ones(1)], [jnp.ones(1) * 3.0] * 2, jnp.ones(1)),
  )
  assert output.outer_loss > 0.0
  np.testing.assert_array_equal(output.meta_gradient, 0.0)


def _predict(params, batch):
  return jnp.sin(jnp.tanh(batch @ params['in']) @ params['out'])


def _regression_loss(params, frozen_params, meta_params, batch):
  # A target made of the frozen parameters, as in temporal-difference learning.
  target = meta_params['discount'] * _predict(frozen_params, batch[::-1])
  error = _predict(params, batch) - target - meta_params['shift']
  return jnp.mean(error**2), {'error': error}


def _regression_problem():
  rng = np.random.default_rng(0)
  params = {'in': rng.normal(size=(3, 4)), 'out': rng.normal(size=(4, 2))}
  meta_params = {'shift': rng.normal(size=2), 'discount': 0.8}
  return jax.tree.map(
    jnp.asarray, (params, meta_params, rng.normal(size=(5, 3)))
  )


@pytest.mark.parametrize('argument', [0, 1])
def test_derivative_of_the_mixed_mode_gradient(argument):
  with enable_x64():
    params, meta_params, batch = _regression_problem()

    def summary(gradient):
      return lambda *args: sum(
        jnp.sum(jnp.cos(leaf)) for leaf in jax.tree.leaves(gradient(*args))
      )

    def plain_gradient(params, meta_params):
      return jax.grad(_regression_loss, has_aux=True)(
        params, params, meta_params, batch
      )[0]

    def mixed_gradient(params, meta_params):
      return mixed_mode.gradient(_regression_loss)(params, meta_params, batch)[
        0
      ]

    point = (params, meta_params)
    actual = jax.grad(summary(mixed_gradient), argument)(*point)
    # Reverse over reverse, and central differences.
    expected = jax.grad(summary(plain_gradient), argument)(*point)
    numeric = _central_differences(summary(plain_gradient), point, argument)
    for a, b, c in zip(
      *map(jax.tree.leaves, (actual, expected, numeric)), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)
      np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-8)


def _central_differences(function, point, argument, step=1e-5):
  flat, unflatten = jax.flatten_util.ravel_pytree(point[argument])

  def moved(vector):
    arguments = list(point)
    arguments[argument] = unflatten(vector)
    return function(*arguments)

  basis = jnp.eye(flat.size) * step
  values = jax.jit(jax.vmap(moved))
  difference = values(flat + basis) - values(flat - basis)
  return unflatten(difference / (2 * step))


@pytest.mark.parametrize('num_updates', [1, 2, 5])
def test_meta_gradient_of_a_quadratic_in_closed_form(num_updates):
  # x^(K) = (1 - lr w)^K x0; the direct outer loss is (x^(K))^2 / 2.
  learning_rate, w, x0 = 0.1, 1.5, 2.0
  with enable_x64():
    update, opt_state = _sgd_updates(learning_rate)
    learner = engine.meta_learner(
      update, engine.direct_loss(_quadratic_loss), optax.sgd(1.0)
    )
    agent = engine.AgentState(jnp.array([x0]), opt_state)
    output = learner.step(
      agent,
      learner.init(jnp.array(w), agent.params),
      engine.MetaData([jnp.zeros(1)] * num_updates, [], jnp.zeros(1)),
    )
  shrink = 1 - learning_rate * w
  expected = (
    shrink**num_updates
    * x0
    * num_updates
    * shrink ** (num_updates - 1)
    * (-learning_rate)
    * x0
  )
  np.testing.assert_allclose(output.meta_gradient, expected, rtol=1e-10)


def test_the_agent_can_keep_the_targets_updates():
  # As above, from 1: 0.8, then 1.04 on batch 2; only the plain step is dropped.
  update, opt_state = _sgd_updates(0.1)
  loss = engine.bootstrapped_loss(
    engine.grounded_bootstrap(update, update),
    _squared_distance,
    keep_updates=True,
  )
  learner = engine.meta_learner(update, loss, optax.sgd(1.0))
  agent = engine.AgentState(jnp.array([1.0]), opt_state)
  data = engine.MetaData([jnp.zeros(1)], [jnp.array([2.0])], jnp.array([2.0]))
  output = learner.step(agent, learner.init(jnp.array(2.0), agent.params), data)
  np.testing.assert_allclose(output.agent.params, [1.04], rtol=1e-6)
  assert len(output.agent_aux) == 2


@pytest.mark.parametrize(
  ('bootstrap', 'expected'),
  # From 0.8, two steps towards 2: with w = 2 both, with w = 1 both.
  [
    (engine.learned_bootstrap, 2.0 - 1.2 * 0.8**2),
    (engine.plain_bootstrap, 2.0 - 1.2 * 0.9**2),
  ],
)
def test_targets_of_one_kind_of_update(bootstrap, expected):
  update, opt_state = _sgd_updates(0.1)
  target = bootstrap(update).make(
    engine.AgentState(jnp.array([0.8]), opt_state),
    jnp.array(2.0),
    (),
    engine.MetaData([], [jnp.array([2.0])], jnp.array([2.0])),
  )
  np.testing.assert_allclose(target.params, [expected], rtol=1e-6)
