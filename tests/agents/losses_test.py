"""The loss of one head against an independent NumPy re-derivation."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from bmg.agents import losses, types
from bmg.configs import schema

_B, _T, _A = 3, 5, 4
_HYPERS = types.Hypers(
  discount=0.9,
  trace_lambda=0.8,
  leak=0.6,
  cut_leak=0.3,
  policy_weight=0.7,
  entropy_weight=0.02,
  value_weight=0.3,
)


def _random_batch(seed=0):
  rng = np.random.default_rng(seed)
  output = types.HeadOutput(
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


def _trusted(pi, mu, config):
  """LASER's condition in one state."""
  if config.trust_region == 0:
    return True
  clipped = np.minimum(config.rho_bar * mu, pi)
  implied = clipped / clipped.sum()
  return bool(np.sum(pi * np.log(pi / implied)) < config.trust_region)


def _rederived(output, transitions, hypers, config):
  """Loops over states; returns each term, v_t - V and trust per state."""
  policy, value, entropy, error, trust = np.zeros((5, _B, _T))
  for b, t in itertools.product(range(_B), reversed(range(_T))):
    action = int(transitions.actions[b, t])
    pi = _softmax(np.asarray(output.logits[b, t]))
    mu = _softmax(np.asarray(transitions.behaviour_logits[b, t]))
    ratio = pi[action] / mu[action] if config.returns == 'vtrace' else 1.0
    leaky = lambda leak, bound, e=ratio: leak * min(bound, e) + (1 - leak) * e
    rho = leaky(hypers.leak, config.rho_bar)
    c = hypers.trace_lambda * leaky(hypers.cut_leak, config.c_bar)
    discount = hypers.discount * float(transitions.discounts[b, t])
    v, v_next = (float(output.values[b, t + i]) for i in (0, 1))
    following = v_next + (error[b, t + 1] if t + 1 < _T else 0.0)
    q = float(transitions.rewards[b, t]) + discount * following
    if not _trusted(pi, mu, config):
      continue
    trust[b, t] = 1.0
    delta = rho * (float(transitions.rewards[b, t]) + discount * v_next - v)
    error[b, t] = delta + discount * c * (following - v_next)
    advantage = q - v if config.advantage == 'q' else error[b, t]
    policy[b, t] = -rho * np.log(pi[action]) * advantage
    value[b, t] = 0.5 * error[b, t] ** 2
    online = config.entropy_on_replay or bool(transitions.is_online[b])
    entropy[b, t] = np.sum(pi * np.log(pi)) * online
  return policy, value, entropy, error, trust


def _gradient(batch, config, hypers=_HYPERS):
  """The agent's update: d total / d output, with all else constant."""
  output, transitions = batch
  return jax.grad(
    lambda differentiated: (
      losses.actor_critic_loss(
        differentiated, output, transitions, hypers, config
      ).total
    )
  )(output)


def _loss(**fields):
  """A mean of losses with half the squared error, unless `fields` say else."""
  return schema.Loss(**{'reduction': 'mean', 'half_value_loss': True, **fields})


@pytest.mark.parametrize(
  ('returns', 'threshold'), [('vtrace', 0.0), ('vtrace', 0.05), ('lambda', 0.0)]
)
@pytest.mark.parametrize('advantage', ['q', 'target'])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
@pytest.mark.parametrize('entropy_on_replay', [True, False])
def test_terms(returns, threshold, advantage, reduction, entropy_on_replay):
  config = _loss(
    returns=returns,
    advantage=advantage,
    reduction=reduction,
    entropy_on_replay=entropy_on_replay,
    rho_bar=2.0,
    trust_region=threshold,
  )
  with enable_x64():
    batch = _random_batch()
    terms = losses.actor_critic_loss(batch[0], *batch, _HYPERS, config)
  *per_state, error, trust = _rederived(*batch, _HYPERS, config)
  reduce = np.mean if reduction == 'mean' else np.sum
  policy, value, entropy = (reduce(x) for x in per_state)
  np.testing.assert_allclose(terms.policy, policy, rtol=1e-8)
  np.testing.assert_allclose(terms.value, value, rtol=1e-8)
  np.testing.assert_allclose(terms.entropy, entropy, rtol=1e-8)
  np.testing.assert_allclose(
    terms.total, 0.7 * policy + 0.02 * entropy + 0.3 * value, rtol=1e-8
  )
  # Statistics are means, whatever the losses are.
  np.testing.assert_allclose(terms.mean_value, batch[0].values[:, :-1].mean())
  np.testing.assert_allclose(terms.td_error, error.mean(), rtol=1e-8)
  np.testing.assert_allclose(terms.rejected, 1 - trust.mean(), atol=1e-12)
  assert (0.2 < terms.rejected < 0.8) == (threshold > 0)


def test_the_value_loss_without_its_half():
  batch = _random_batch()
  halved, whole = (
    losses.actor_critic_loss(
      batch[0], *batch, _HYPERS, schema.Loss(half_value_loss=half)
    )
    for half in (True, False)
  )
  np.testing.assert_allclose(whole.value, 2 * halved.value, rtol=1e-6)
  np.testing.assert_allclose(
    whole.total - halved.total, 0.3 * halved.value, rtol=1e-3
  )


def test_one_state_by_hand():
  # pi is uniform over two actions and mu = (4/5, 1/5): e = 5/2 for action 1.
  # leak = 1: rho = 1, q = 3 + 0.5 * 2 = 4 and v = 1 + (4 - 1) = 4.
  # leak = 0: rho = 5/2, q = 4 and v = 1 + 5/2 * 3 = 8.5.
  output = types.HeadOutput(jnp.zeros((1, 2, 2)), jnp.array([[1.0, 2.0]]))
  transitions = losses.Transitions(
    actions=jnp.array([[1]]),
    rewards=jnp.array([[3.0]]),
    discounts=jnp.array([[1.0]]),
    behaviour_logits=jnp.log(jnp.array([[[0.8, 0.2]]])),
    is_online=jnp.ones(1),
  )
  for leak, advantage, weighted_advantage, error in (
    (1.0, 'q', 3.0, 3.0),
    (1.0, 'target', 3.0, 3.0),
    (0.0, 'q', 2.5 * 3.0, 7.5),
    (0.0, 'target', 2.5 * 7.5, 7.5),
  ):
    hypers = _HYPERS._replace(discount=0.5, leak=leak)
    terms = losses.actor_critic_loss(
      output, output, transitions, hypers, _loss(advantage=advantage)
    )
    expected = np.log(2.0) * weighted_advantage
    np.testing.assert_allclose(terms.policy, expected, rtol=1e-5)
    np.testing.assert_allclose(terms.value, error**2 / 2, rtol=1e-5)
    np.testing.assert_allclose(terms.entropy, -np.log(2.0), rtol=1e-5)
    np.testing.assert_allclose(terms.td_error, error, rtol=1e-5)


def test_rejected_states_are_not_learned_from():
  config = _loss(trust_region=0.2)
  with enable_x64():
    batch = _random_batch()
    *_, trust = _rederived(*batch, _HYPERS, config)
    only = dict(policy_weight=0.0, entropy_weight=0.0, value_weight=0.0)
    for name in only:
      hypers = _HYPERS._replace(**{**only, name: 1.0})
      gradient = _gradient(batch, config, hypers)
      learned = np.abs(gradient.values) + np.abs(gradient.logits).sum(axis=-1)
      np.testing.assert_array_equal(learned[:, :-1] != 0.0, trust == 1.0)


def test_what_was_done_in_a_rejected_state_makes_no_difference():
  # Neither there nor, by way of the returns, before.
  config = _loss(trust_region=0.2)
  with enable_x64():
    output, transitions = _random_batch()
    *_, trust = _rederived(output, transitions, _HYPERS, config)
    elsewhere = transitions._replace(
      rewards=jnp.where(trust == 1, transitions.rewards, 100.0),
      actions=jnp.where(trust == 1, transitions.actions, 0),
    )
    terms, same = (
      losses.actor_critic_loss(output, output, data, _HYPERS, config)
      for data in (transitions, elsewhere)
    )
    np.testing.assert_array_equal(terms, same)
    # Trust depends on the state alone, not on the action that was taken.
    other = transitions._replace(actions=(transitions.actions + 1) % _A)
    terms = losses.actor_critic_loss(output, output, other, _HYPERS, config)
  assert terms.rejected == same.rejected
  assert terms.policy != same.policy


def test_entropy_of_online_data_alone():
  hypers = _HYPERS._replace(policy_weight=0.0)
  with enable_x64():
    batch = _random_batch()
    for on_replay in (True, False):
      config = _loss(entropy_on_replay=on_replay, trust_region=0.0)
      learned = np.any(_gradient(batch, config, hypers).logits, axis=(1, 2))
      assert learned.tolist() == [True, True, on_replay]


def test_network_gradient_treats_targets_as_constants():
  # d total / dV is value_weight * (V - v) / (B T); the bootstrap V_T gets none.
  with enable_x64():
    output, transitions = _random_batch()
    config = _loss()
    gradient = _gradient((output, transitions), config)
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
      return losses.actor_critic_loss(batch[0], *batch, hypers, _loss()).total

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
