"""The agent's meta-gradients against central finite differences, in float64.

A small agent with the real losses, optimisers and clipping.
"""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import enable_x64

from agents import losses, meta_parameters, optimizers, types
from configs import schema
from learner import engine, training

_B, _T, _A, _FEATURES = 3, 4, 3, 5


def _network():
  """A small MLP in place of a convolutional torso; any dtype."""

  def forward(observations):
    hidden = jnp.tanh(hk.Linear(6)(observations.astype(jnp.float64) / 255.0))
    logits = hk.Linear(_A)(hidden)
    values = hk.Linear(1)(hidden)[..., 0]
    return types.NetworkOutput(logits, values)

  return hk.transform(forward)


def _config(**meta):
  defaults = schema.MetaParameters()
  # Away from the sigmoids' flat ends, and different from the fixed values.
  parameters = {
    spec.name: dataclasses.replace(
      getattr(defaults, spec.name),
      initial=0.7 * getattr(defaults, spec.name).high,
    )
    for spec in dataclasses.fields(defaults)
  }
  return schema.Config(
    num_frames=10_000_000,
    loss=schema.Loss(rho_bar=1.3),
    optimizer=schema.Optimizer(learning_rate=0.05, max_grad_norm=0.05),
    meta=schema.Meta(parameters=schema.MetaParameters(**parameters), **meta),
  )


def _data(seed):
  rng = np.random.default_rng(seed)
  return training.LearnerData(
    observations=jnp.asarray(
      rng.integers(0, 255, size=(_B, _T + 1, _FEATURES)), jnp.uint8
    ),
    transitions=losses.Transitions(
      actions=jnp.asarray(rng.integers(_A, size=(_B, _T)), jnp.int32),
      rewards=jnp.asarray(rng.normal(size=(_B, _T))),
      discounts=jnp.asarray(1.0 * (rng.random((_B, _T)) > 0.1)),
      behaviour_logits=jnp.asarray(rng.normal(size=(_B, _T, _A))),
      is_online=jnp.ones(_B),
    ),
  )


def _problem(config, num_bootstrap):
  network = _network()
  params = network.init(jax.random.key(0), jnp.zeros((1, _FEATURES), jnp.uint8))
  params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
  optimizer = optimizers.make_optimizer(config.optimizer, config.total_updates)
  agent = engine.AgentState(params, optimizer.init(params))
  # A few updates first, so that the optimiser's statistics are not zero.
  objectives = training.make_objectives(config, network)
  plain_update = engine.gradient_update(objectives.plain_loss, optimizer)
  for seed in (100, 101):
    agent, _ = jax.jit(plain_update)(agent, None, _data(seed))
  data = engine.MetaData(
    inner=[_data(i) for i in range(config.meta.inner_updates)],
    bootstrap=[_data(50 + i) for i in range(num_bootstrap)],
  )
  return objectives, optimizer, agent, data


def _naive_update(loss, optimizer):
  """The update rule in plain code, so that the oracle shares no trick."""

  def update(state, meta_params, batch):
    grads, _ = jax.grad(loss, has_aux=True)(
      state.params, state.params, meta_params, batch
    )
    steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return engine.AgentState(
      optax.apply_updates(state.params, steps), opt_state
    )

  return update


def _naive_updates(update, agent, meta_params, batches):
  for batch in batches:
    agent = update(agent, meta_params, batch)
  return agent


def _finite_differences(function, meta_params, step=1e-5):
  """Central differences of a scalar function of the logits, all at once."""
  logits = jnp.stack([meta_params[name] for name in types.Hypers._fields])

  def of_vector(vector):
    return function(dict(zip(types.Hypers._fields, vector, strict=True)))

  values = jax.vmap(of_vector)
  basis = jnp.eye(len(logits)) * step
  difference = (values(logits + basis) - values(logits - basis)) / (2 * step)
  return dict(zip(types.Hypers._fields, difference, strict=True))


def _assert_close(actual, expected):
  assert set(actual) == set(types.Hypers._fields)
  largest = max(abs(x) for x in expected.values())
  for name in expected:
    np.testing.assert_allclose(
      actual[name],
      expected[name],
      rtol=1e-5,
      atol=1e-6 * largest,
      err_msg=name,
    )
    assert actual[name] != 0.0, f'{name} has no gradient at all'


def _with_optimizer(config, name):
  # SGD steps on a clipped gradient are tiny without a larger rate, and their
  # finite differences then drown in rounding errors.
  learning_rate = 2.0 if name == 'sgd' else config.optimizer.learning_rate
  optimizer = dataclasses.replace(
    config.optimizer, name=name, learning_rate=learning_rate
  )
  return dataclasses.replace(config, optimizer=optimizer)


@pytest.mark.parametrize('optimizer_name', ['rmsprop', 'adam', 'sgd'])
@pytest.mark.parametrize('inner_updates', [1, 2, 3])
def test_bootstrapped(inner_updates, optimizer_name):
  with enable_x64():
    config = _with_optimizer(
      _config(mode='bmg', inner_updates=inner_updates), optimizer_name
    )
    objectives, optimizer, agent, data = _problem(config, num_bootstrap=3)
    meta_params = meta_parameters.initial(config.meta.parameters)
    update = _naive_update(objectives.inner_loss, optimizer)
    plain_update = _naive_update(objectives.plain_loss, optimizer)
    take_step = jax.jit(update)

    def final_params(meta_params):
      return _naive_updates(update, agent, meta_params, data.inner).params

    @jax.jit
    def differences(target):
      return _finite_differences(
        lambda w: objectives.matching(target, final_params(w), data.inner[-1])[
          0
        ],
        meta_params,
      )

    for bootstrap_length in (1, 2, 4):
      bootstrap = data.bootstrap[: bootstrap_length - 1]
      state = _naive_updates(
        take_step, agent, meta_params, [*data.inner, *bootstrap]
      )
      target = jax.jit(plain_update)(state, None, data.inner[-1]).params
      step = _engine_step(objectives, optimizer, config)
      output = jax.jit(step)(
        agent, meta_params, data._replace(bootstrap=bootstrap)
      )
      _assert_close(output.meta_gradient, differences(target))


def _engine_step(objectives, optimizer, config):
  update = engine.gradient_update(objectives.inner_loss, optimizer)
  plain_update = engine.gradient_update(objectives.plain_loss, optimizer)
  meta_optimizer = optimizers.make_meta_optimizer(config.meta)
  step = engine.meta_step(
    update,
    engine.bootstrapped_loss(
      engine.grounded_bootstrap(update, plain_update), objectives.matching
    ),
    meta_optimizer,
  )
  return lambda agent, meta_params, data: step(
    agent, meta_params, meta_optimizer.init(meta_params), data
  )


@pytest.mark.parametrize('inner_updates', [1, 2, 3])
def test_standard(inner_updates):
  with enable_x64():
    config = _config(mode='mg', inner_updates=inner_updates)
    objectives, optimizer, agent, data = _problem(config, 0)
    meta_params = meta_parameters.initial(config.meta.parameters)
    update = _naive_update(objectives.inner_loss, optimizer)

    def final_params(meta_params):
      return _naive_updates(update, agent, meta_params, data.inner).params

    # The outer objective's own gradient is a semi-gradient, with constant
    # targets; x^(K)(w) is what finite differences must move.
    params = jax.jit(final_params)(meta_params)
    outer_gradient, _ = jax.grad(objectives.plain_loss, has_aux=True)(
      params, params, None, data.inner[-1]
    )

    def projected(meta_params):
      products = jax.tree.map(
        lambda x, g: jnp.sum(x * g), final_params(meta_params), outer_gradient
      )
      return sum(jax.tree.leaves(products))

    expected = jax.jit(lambda: _finite_differences(projected, meta_params))()
    meta_optimizer = optimizers.make_meta_optimizer(config.meta)
    step = engine.meta_step(
      engine.gradient_update(objectives.inner_loss, optimizer),
      engine.direct_loss(objectives.plain_loss),
      meta_optimizer,
    )
    output = jax.jit(step)(
      agent, meta_params, meta_optimizer.init(meta_params), data
    )
    _assert_close(output.meta_gradient, expected)


def test_sgd_target_with_l2_matching_is_the_standard_meta_gradient():
  # Paper, section 3: BMG(SGD with step 1/2, L2, L = 1) = MG.
  with enable_x64():
    config = _config(mode='bmg')
    objectives, optimizer, agent, data = _problem(config, 0)
    meta_params = meta_parameters.initial(config.meta.parameters)
    update = engine.gradient_update(objectives.inner_loss, optimizer)

    def sgd_target(state, meta_params, data):
      grads, _ = jax.grad(objectives.plain_loss, has_aux=True)(
        state.params, state.params, None, data.inner[-1]
      )
      return jax.tree.map(lambda x, g: x - 0.5 * g, state.params, grads)

    def l2_matching(target, params, batch):
      squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), target, params)
      return sum(jax.tree.leaves(squares)), None

    gradients = []
    for outer_loss in (
      engine.bootstrapped_loss(sgd_target, l2_matching),
      engine.direct_loss(objectives.plain_loss),
    ):
      step = engine.meta_step(update, outer_loss, optax.sgd(1.0))
      meta_opt_state = optax.sgd(1.0).init(meta_params)
      output = step(agent, meta_params, meta_opt_state, data)
      gradients.append(output.meta_gradient)
    for name in meta_params:
      np.testing.assert_allclose(
        gradients[0][name], gradients[1][name], rtol=1e-10, atol=1e-16
      )


def test_inner_update_is_the_same_with_and_without_meta_learning():
  # With every meta-parameter at its fixed value, the update that the
  # meta-learned path makes is the plain one.
  with enable_x64():
    config = _config(mode='bmg')
    parameters = {
      spec.name: schema.MetaParameter(
        learned=True, initial=0.5, low=0.0, high=1.0, fixed=0.5
      )
      for spec in dataclasses.fields(schema.MetaParameters)
    }
    config = dataclasses.replace(
      config,
      meta=schema.Meta(parameters=schema.MetaParameters(**parameters)),
    )
    objectives, optimizer, agent, data = _problem(config, 0)
    meta_params = meta_parameters.initial(config.meta.parameters)
    with_meta, _ = engine.gradient_update(objectives.inner_loss, optimizer)(
      agent, meta_params, data.inner[0]
    )
    without = _naive_update(objectives.plain_loss, optimizer)(
      agent, None, data.inner[0]
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15),
      with_meta.params,
      without.params,
    )
