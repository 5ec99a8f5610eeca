"""The loss of all heads: each on its own, and the outer critic apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from bmg.agents import losses, types
from bmg.configs import schema

_H, _B, _T, _A = 3, 3, 5, 3
_CONFIG = schema.Loss(
  trust_region=0.3,
  entropy_on_replay=False,
  reduction='mean',
  half_value_loss=True,
)
_PLAIN = types.Hypers(0.99, 0.95, 0.9, 0.8, 1.0, 0.01, 0.25)


@pytest.fixture(autouse=True)
def _float64():
  with enable_x64():
    yield


def _random_output(seed, outer_critic=True):
  rng = np.random.default_rng(seed)
  heads = types.HeadOutput(
    jnp.asarray(rng.normal(size=(_H, _B, _T + 1, _A))),
    jnp.asarray(rng.normal(size=(_H, _B, _T + 1))),
  )
  outer = jnp.asarray(rng.normal(size=(_B, _T + 1))) if outer_critic else None
  return types.NetworkOutput(heads, outer)


def _random_transitions(seed):
  rng = np.random.default_rng(seed)
  return losses.Transitions(
    actions=jnp.asarray(rng.integers(_A, size=(_B, _T))),
    rewards=jnp.asarray(rng.normal(size=(_B, _T))),
    discounts=jnp.asarray((rng.random((_B, _T)) > 0.2).astype(float)),
    behaviour_logits=jnp.asarray(rng.normal(size=(_B, _T, _A))),
    is_online=jnp.array([1.0, 1.0, 0.0]),
  )


def _random_hypers(seed):
  rng = np.random.default_rng(seed)
  return types.Hypers(*jnp.asarray(rng.uniform(0.2, 0.9, size=(7, _H))))


# Another point as the frozen one, so that no term can hide that it is 0.
_loss = jax.jit(
  lambda output, frozen, hypers, plain=_PLAIN: losses.agent_loss(
    output, frozen, _random_transitions(2), hypers, plain, _CONFIG
  )
)


def test_the_total_is_that_of_heads_one_by_one():
  output, frozen = _random_output(0), _random_output(1)
  hypers, transitions = _random_hypers(3), _random_transitions(2)
  heads = [
    losses.actor_critic_loss(
      types.HeadOutput(output.heads.logits[h], output.heads.values[h]),
      types.HeadOutput(frozen.heads.logits[h], frozen.heads.values[h]),
      transitions,
      types.Hypers(*(float(hyper[h]) for hyper in hypers)),
      _CONFIG,
    )
    for h in range(_H)
  ]
  terms = _loss(output, frozen, hypers)
  for actual, expected in zip(terms.main, heads[0], strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-10)
  np.testing.assert_allclose(
    terms.auxiliary, heads[1].total + heads[2].total, rtol=1e-10
  )
  # The outer critic: a value of the main policy, with the plain weights.
  outer = losses.actor_critic_loss(
    types.HeadOutput(output.heads.logits[0], output.outer_values),
    types.HeadOutput(frozen.heads.logits[0], frozen.outer_values),
    transitions,
    _PLAIN,
    _CONFIG,
  )
  np.testing.assert_allclose(terms.outer_critic, 0.25 * outer.value, rtol=1e-10)
  np.testing.assert_allclose(
    terms.total,
    sum(head.total for head in heads) + 0.25 * outer.value,
    rtol=1e-10,
  )
  assert 0.0 < terms.main.rejected < 1.0


@pytest.mark.parametrize('head', range(_H))
def test_a_heads_weights_reach_its_own_outputs_alone(head):
  output, frozen = _random_output(0, False), _random_output(1, False)
  own = jnp.arange(_H) == head
  hypers = _random_hypers(3)
  hypers = hypers._replace(
    policy_weight=hypers.policy_weight * own,
    entropy_weight=hypers.entropy_weight * own,
    value_weight=hypers.value_weight * own,
  )
  # Neither now nor by way of targets and weights, which are made of `frozen`.
  gradients = jax.grad(
    lambda output, frozen: _loss(output, frozen, hypers).total, argnums=(0, 1)
  )(output, frozen)
  for gradient in jax.tree.leaves(gradients):
    touched = np.any(gradient, axis=tuple(range(1, gradient.ndim)))
    np.testing.assert_array_equal(touched, own)


def test_the_outer_critic_learns_from_the_plain_objective_alone():
  output, frozen, hypers = (
    _random_output(0),
    _random_output(1),
    _random_hypers(3),
  )

  def outer_critic(output, hypers, plain):
    return _loss(output, frozen, hypers, plain).outer_critic

  by_output, by_hypers, by_plain = jax.grad(outer_critic, argnums=(0, 1, 2))(
    output, hypers, _PLAIN
  )
  assert np.any(by_output.outer_values)
  assert not np.any(by_output.heads.logits)
  assert not np.any(by_output.heads.values)
  assert not np.any(jax.tree.leaves(by_hypers))
  used = ('discount', 'trace_lambda', 'leak', 'cut_leak', 'value_weight')
  for name, slope in by_plain._asdict().items():
    assert (slope != 0.0) == (name in used)


def test_an_outer_critic_leaves_the_heads_as_they_are():
  hypers = _random_hypers(3)
  gradients = [
    jax.grad(
      lambda output, other=outer: (
        _loss(output, _random_output(1, other), hypers).total
      )
    )(_random_output(0, outer)).heads
    for outer in (True, False)
  ]
  for with_it, without in zip(*gradients, strict=True):
    np.testing.assert_allclose(with_it, without, rtol=1e-10)


def test_without_auxiliary_heads_or_outer_critic_only_the_main_one_counts():
  heads = jax.tree.map(lambda x: x[:1], _random_output(0).heads)
  output = types.NetworkOutput(heads)
  hypers = jax.tree.map(lambda x: x[:1], _random_hypers(3))
  terms = _loss(output, output, hypers)
  assert terms.auxiliary == 0.0
  assert terms.outer_critic == 0.0
  assert terms.total == terms.main.total != 0.0
