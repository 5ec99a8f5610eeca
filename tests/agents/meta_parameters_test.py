"""Tables and networks of meta-parameters, and their bounds."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmg.agents import meta_parameters, types
from bmg.configs import schema

_DEFAULTS = schema.MetaParameters()


def _meta(hidden=(5,), **parameters):
  return schema.Meta(
    parameters=dataclasses.replace(_DEFAULTS, **parameters),
    context=schema.Context(hidden=hidden),
  )


def _with(name, **changes):
  return {name: dataclasses.replace(getattr(_DEFAULTS, name), **changes)}


def _made(config, num_heads=3, context_size=0):
  made = meta_parameters.make_parametrization(config, num_heads, context_size)
  return made, made.init(jax.random.key(0))


def _count(meta_params):
  return sum(leaf.size for leaf in jax.tree.leaves(meta_params))


def test_the_papers_agent_has_18_meta_parameters_at_logit_4_6():
  made, meta_params = _made(schema.Meta(), schema.Agent().num_heads)
  assert _count(meta_params) == 18
  for logit in meta_params.values():
    np.testing.assert_allclose(logit, np.full(3, 4.6), rtol=1e-5)
  hypers = made.hypers(meta_params, None)
  expected = types.Hypers(
    discount=0.990,
    trace_lambda=0.990,
    leak=0.990,
    cut_leak=0.990,
    policy_weight=0.990,
    entropy_weight=0.00990,
    value_weight=0.2475,
  )
  for name, value in expected._asdict().items():
    np.testing.assert_allclose(
      getattr(hypers, name), np.full(3, value), rtol=1e-3
    )


def test_learning_both_leaks_makes_21():
  made, meta_params = _made(_meta(**_with('cut_leak', learned=True)))
  assert _count(meta_params) == 21
  meta_params['leak'] -= 1.0
  hypers = made.hypers(meta_params, None)
  np.testing.assert_allclose(hypers.cut_leak, 0.990, rtol=1e-3)
  assert np.all(hypers.leak < 0.98)


def test_the_cuts_leak_is_the_weights_where_it_is_not_learned():
  made, meta_params = _made(_meta())
  meta_params['leak'] = jnp.array([-1.0, 0.0, 1.0])
  hypers = made.hypers(meta_params, None)
  np.testing.assert_allclose(hypers.leak, jax.nn.sigmoid(meta_params['leak']))
  np.testing.assert_array_equal(hypers.cut_leak, hypers.leak)


def test_the_plain_objective_has_fixed_values():
  assert meta_parameters.fixed_hypers(_DEFAULTS) == types.Hypers(
    discount=0.995,
    trace_lambda=1.0,
    leak=1.0,
    cut_leak=1.0,
    policy_weight=1.0,
    entropy_weight=0.01,
    value_weight=0.25,
  )
  # A shared leak is shared there, too.
  config = dataclasses.replace(_DEFAULTS, **_with('leak', fixed=0.5))
  assert meta_parameters.fixed_hypers(config).cut_leak == 0.5
  apart = dataclasses.replace(config, **_with('cut_leak', learned=True))
  assert meta_parameters.fixed_hypers(apart).cut_leak == 1.0


def test_values_stay_within_bounds():
  made, meta_params = _made(
    _meta(**_with('discount', initial=0.6, low=0.5, high=0.9))
  )
  np.testing.assert_allclose(
    made.hypers(meta_params, None).discount, np.full(3, 0.6), rtol=1e-6
  )
  meta_params['discount'] = jnp.array([-50.0, 0.0, 50.0])
  np.testing.assert_allclose(
    made.hypers(meta_params, None).discount, [0.5, 0.7, 0.9], rtol=1e-6
  )


@pytest.mark.parametrize('context_size', [0, 4])
def test_one_that_is_not_learned_keeps_its_fixed_value(context_size):
  made, meta_params = _made(
    _meta(**_with('discount', learned=False)), context_size=context_size
  )
  if context_size == 0:
    assert 'discount' not in meta_params
  discount = made.hypers(meta_params, jnp.ones(context_size)).discount
  np.testing.assert_allclose(discount, np.full(3, 0.995))


@pytest.mark.parametrize('context_size', [0, 4])
def test_nothing_to_learn(context_size):
  fixed = {
    spec.name: dataclasses.replace(getattr(_DEFAULTS, spec.name), learned=False)
    for spec in dataclasses.fields(_DEFAULTS)
  }
  config = schema.Meta(mode='none', parameters=schema.MetaParameters(**fixed))
  made, meta_params = _made(config, context_size=context_size)
  assert meta_params == {}
  for value, plain in zip(
    made.hypers(meta_params, jnp.ones(context_size)),
    meta_parameters.fixed_hypers(config.parameters),
    strict=True,
  ):
    np.testing.assert_allclose(value, np.full(3, plain))


def test_gradient_is_the_sigmoids_of_its_own_head():
  made, meta_params = _made(_meta())
  meta_params = jax.tree.map(jnp.zeros_like, meta_params)
  gradient = jax.grad(
    lambda meta_params: made.hypers(meta_params, None).entropy_weight[1]
  )(meta_params)
  np.testing.assert_allclose(
    gradient.pop('entropy_weight'), [0.0, 0.01 * 0.25, 0.0], rtol=1e-6
  )
  assert not np.any(jax.tree.leaves(gradient))


def _contexts(size=4):
  return jnp.asarray(np.random.default_rng(0).normal(size=(5, size)))


def test_a_network_starts_at_the_initial_values_whatever_the_context():
  config = _meta(**_with('discount', initial=0.6, low=0.5, high=0.9))
  table, logits = _made(config)
  network, meta_params = _made(config, context_size=4)
  for context in _contexts():
    for actual, expected in zip(
      network.hypers(meta_params, context),
      table.hypers(logits, None),
      strict=True,
    ):
      assert actual.shape == (3,)
      np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_a_networks_hidden_layers_are_configured():
  _, meta_params = _made(_meta(hidden=(7, 5)), context_size=4)
  # 4 inputs; 6 learned hyper-parameters of 3 heads.
  expected = (4 * 7 + 7) + (7 * 5 + 5) + (5 * 18 + 18)
  assert _count(meta_params) == expected


def test_a_network_can_learn_every_hyper_parameter_of_every_head_apart():
  made, meta_params = _made(_meta(), context_size=4)
  context = _contexts()[0]
  jacobians = jax.jacrev(lambda params: made.hypers(params, context))(
    meta_params
  )
  for name in _DEFAULTS.learned:
    slopes = np.asarray(getattr(jacobians, name)['linear']['b'])
    # [H, outputs]: one output each.
    assert np.count_nonzero(slopes, axis=1).tolist() == [1, 1, 1]
    assert len(set(np.nonzero(slopes)[1])) == 3
  bias = sum(
    np.abs(getattr(jacobians, name)['linear']['b']).sum(axis=0)
    for name in _DEFAULTS.learned
  )
  assert np.all(bias > 0.0)


def test_a_networks_values_depend_on_the_context_once_it_has_learned():
  made, meta_params = _made(_meta(), context_size=4)
  rng = np.random.default_rng(1)
  learned = hk.data_structures.map(
    lambda module, name, x: jnp.asarray(rng.normal(size=x.shape), x.dtype),
    meta_params,
  )
  hypers = jax.vmap(made.hypers, (None, 0))(learned, _contexts())
  for name, values in hypers._asdict().items():
    high = getattr(_DEFAULTS, name).high
    assert np.all((values > 0.0) & (values < high))
    # Across contexts, and across heads.
    assert np.all(np.ptp(values, axis=0) > 0.0)
    assert np.all(np.ptp(values, axis=1) > 0.0)

  def total(context):
    return sum(hyper.sum() for hyper in made.hypers(learned, context))

  # The meta-gradient is not to change what the agent goes through.
  assert not np.any(jax.grad(total)(_contexts()[0]))
