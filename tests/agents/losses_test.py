"""The actor-critic loss against an independent NumPy re-derivation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from agents import losses, types
from configs import schema

_B, _T, _A = 3, 5, 4
_HYPERS = types.Hypers(
  discount=0.9,
  trace_lambda=0.8,
  leak=0.6,
  policy_weight=0.7,
  entropy_weight=0.02,
  value_weight=0.3,
)


def _random_batch(seed=0):
  rng = np.random.default_rng(seed)
  output = types.NetworkOutput(
    logits=rng.normal(size=(_B, _T + 1, _A)),
    values=rng.normal(size=(_B, _T + 1)),
  )
  transitions = losses.Transitions(
    actions=rng.integers(_A, size=(_B, _T)).astype(np.int32),
    rewards=rng.normal(size=(_B, _T)),
    discounts=(rng.random((_B, _T)) > 0.2).astype(np.float64),
    behaviour_logits=rng.normal(size=(_B, _T, _A)),
    is_online=np.array([1.0, 1.0, 0.0]),
  )
  return jax.tree.map(jnp.asarray, (output, transitions))


def _softmax(logits):
  exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return exp / exp.sum(axis=-1, keepdims=True)


def _rederived(output, transitions, hypers, config):
  """Loops over states; returns lists of each term per state."""
  policy, value, entropy = [], [], []
  for b in range(_B):
    v_t = float(output.values[b, _T])
    following = v_t
    for t in reversed(range(_T)):
      action = int(transitions.actions[b, t])
      pi = _softmax(np.asarray(output.logits[b, t]))
      mu = _softmax(np.asarray(transitions.behaviour_logits[b, t]))
      ratio = pi[action] / mu[action] if config.returns == 'vtrace' else 1.0
      leaky = lambda bound, e=ratio: (
        hypers.leak * min(bound, e) + (1 - hypers.leak) * e
      )
      rho, c = leaky(config.rho_bar), hypers.trace_lambda * leaky(config.c_bar)
      discount = hypers.discount * float(transitions.discounts[b, t])
      v = float(output.values[b, t])
      v_next = float(output.values[b, t + 1])
      reward = float(transitions.rewards[b, t])
      q = reward + discount * following
      delta = rho * (reward + discount * v_next - v)
      target = v + delta + discount * c * (following - v_next)
      advantage = (q if config.advantage == 'q' else target) - v
      policy.append(-rho * np.log(pi[action]) * advantage)
      value.append(0.5 * (target - v) ** 2)
      online = config.entropy_on_replay or bool(transitions.is_online[b])
      entropy.append(np.sum(pi * np.log(pi)) * online)
      following = target
  return np.array(policy), np.array(value), np.array(entropy)


@pytest.mark.parametrize('returns', ['vtrace', 'lambda'])
@pytest.mark.parametrize('advantage', ['q', 'target'])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
@pytest.mark.parametrize('entropy_on_replay', [True, False])
def test_terms(returns, advantage, reduction, entropy_on_replay):
  config = schema.Loss(
    returns=returns,
    advantage=advantage,
    reduction=reduction,
    entropy_on_replay=entropy_on_replay,
    rho_bar=1.2,
  )
  with enable_x64():
    batch = _random_batch()
    terms = losses.actor_critic_loss(batch[0], *batch, _HYPERS, config)
  reduce = np.mean if reduction == 'mean' else np.sum
  policy, value, entropy = (
    reduce(x) for x in _rederived(*batch, _HYPERS, config)
  )
  np.testing.assert_allclose(terms.policy, policy, rtol=1e-8)
  np.testing.assert_allclose(terms.value, value, rtol=1e-8)
  np.testing.assert_allclose(terms.entropy, entropy, rtol=1e-8)
  np.testing.assert_allclose(
    terms.total, 0.7 * policy + 0.02 * entropy + 0.3 * value, rtol=1e-8
  )


def test_network_gradient_treats_targets_as_constants():
  # d total / dV is value_weight * (V - v) / (B T); the bootstrap V_T gets none.
  with enable_x64():
    output, transitions = _random_batch()
    config = schema.Loss()

    def total(differentiated):
      return losses.actor_critic_loss(
        differentiated, output, transitions, _HYPERS, config
      ).total

    gradient = jax.grad(total)(output)
    terms = losses.actor_critic_loss(
      output, output, transitions, _HYPERS._replace(value_weight=1.0), config
    )
    errors = gradient.values[:, :-1] * _B * _T / _HYPERS.value_weight
  np.testing.assert_array_equal(gradient.values[:, -1], 0.0)
  np.testing.assert_array_equal(gradient.logits[:, -1], 0.0)
  # sum (V - v)^2 / (B T) = 2 * value loss.
  np.testing.assert_allclose(np.mean(errors**2), 2 * terms.value, rtol=1e-8)


@pytest.mark.parametrize('name', types.Hypers._fields)
def test_hyper_parameter_gradients_match_finite_differences(name):
  with enable_x64():
    batch = _random_batch()

    def total(x):
      hypers = _HYPERS._replace(**{name: x})
      return losses.actor_critic_loss(
        batch[0], *batch, hypers, schema.Loss()
      ).total

    x, step = jnp.asarray(getattr(_HYPERS, name)), 1e-6
    difference = (total(x + step) - total(x - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(total)(x), difference, rtol=1e-6)
    assert abs(difference) > 1e-4


def test_kl_and_entropy_by_hand():
  p = jnp.log(jnp.array([0.5, 0.5]))
  q = jnp.log(jnp.array([0.25, 0.75]))
  expected = 0.5 * np.log(2.0) + 0.5 * np.log(2.0 / 3.0)
  np.testing.assert_allclose(losses.kl_divergence(p, q), expected, rtol=1e-6)
  np.testing.assert_allclose(losses.kl_divergence(p, p), 0.0, atol=1e-7)
  np.testing.assert_allclose(losses.negative_entropy(p), -np.log(2), rtol=1e-6)


def test_every_hyper_parameter_has_a_meta_parameter():
  fields = [spec.name for spec in dataclasses.fields(schema.MetaParameters)]
  assert tuple(fields) == types.Hypers._fields
