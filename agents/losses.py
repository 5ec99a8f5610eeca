"""The IMPALA / A2C loss as a pure function of outputs, data and hypers.

Flennerhag et al. (2022), appendix C; Espeholt et al. (2018), section 4.2.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from agents import types, vtrace
from configs import schema


class Transitions(NamedTuple):
  """What the loss needs of a batch of unrolls, besides network outputs."""

  # int32 [B, T], float32 [B, T] (clipped), float32 [B, T], float32 [B, T, A].
  actions: jax.Array
  rewards: jax.Array
  discounts: jax.Array
  behaviour_logits: jax.Array
  # float32 [B]: 1 for unrolls from the queue, 0 for those from replay.
  is_online: jax.Array


class LossTerms(NamedTuple):
  """Scalars: the weighted total, and its terms before weighting."""

  total: jax.Array
  policy: jax.Array
  value: jax.Array
  entropy: jax.Array


def log_prob(logits: jax.Array, actions: jax.Array) -> jax.Array:
  """Log-probabilities [...] of `actions` [...] under `logits` [..., A]."""
  log_probs = jax.nn.log_softmax(logits)
  return jnp.take_along_axis(log_probs, actions[..., None], axis=-1)[..., 0]


def negative_entropy(logits: jax.Array) -> jax.Array:
  """Negative entropy [...], in nats, of the policies `logits` [..., A]."""
  log_probs = jax.nn.log_softmax(logits)
  return jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def kl_divergence(p_logits: jax.Array, q_logits: jax.Array) -> jax.Array:
  """KL(p || q) [...], in nats, of categorical `logits` [..., A]."""
  p_log, q_log = jax.nn.log_softmax(p_logits), jax.nn.log_softmax(q_logits)
  return jnp.sum(jnp.exp(p_log) * (p_log - q_log), axis=-1)


def actor_critic_loss(
  output: types.NetworkOutput,
  frozen_output: types.NetworkOutput,
  transitions: Transitions,
  hypers: types.Hypers,
  config: schema.Loss,
) -> LossTerms:
  """Returns the loss of one policy and value head (paper, appendix C).

  Per state, with rho_t, v_t and q_t from leaky V-trace,

    policy_weight * -rho_t log pi(a_t|s_t) (q_t - V_t)
    + entropy_weight * sum_a pi log pi + value_weight * 1/2 (v_t - V_t)^2.

  The agent's update is the gradient in `output` alone. Targets, advantages and
  importance weights are made of `frozen_output`, which has the same value: they
  are constants of that gradient, but a meta-gradient may still pass through
  them, to the hyper-parameters and to earlier updates. Hence no stop-gradient.

  Args:
    output: logits [B, T + 1, A] and values [B, T + 1].
    frozen_output: the same, as a separate argument.
    transitions: the data.
    hypers: scalars.
    config: which returns, advantage, reduction.

  Returns:
    Scalars, reduced over B and T as `config.reduction` says.
  """
  chex.assert_rank([output.logits, output.values], [3, 2])
  chex.assert_equal_shape([transitions.rewards, output.values[:, 1:]])
  chex.assert_trees_all_equal_shapes(output, frozen_output)
  logits, values = output.logits[:, :-1], output.values[:, :-1]
  log_probs = log_prob(logits, transitions.actions)

  if config.returns == 'vtrace':
    frozen_log_probs = log_prob(
      frozen_output.logits[:, :-1], transitions.actions
    )
    behaviour = log_prob(transitions.behaviour_logits, transitions.actions)
    ratios = jnp.exp(frozen_log_probs - behaviour)
  else:
    ratios = jnp.ones_like(log_probs)
  batched_vtrace = jax.vmap(
    vtrace.leaky_vtrace, in_axes=(0, 0, 0, 0, None, None, None, None)
  )
  returns = batched_vtrace(
    frozen_output.values,
    transitions.rewards,
    transitions.discounts * hypers.discount,
    ratios,
    hypers.trace_lambda,
    hypers.leak,
    config.rho_bar,
    config.c_bar,
  )
  estimate = returns.q_estimates if config.advantage == 'q' else returns.targets
  advantages = estimate - frozen_output.values[:, :-1]
  reduce = jnp.mean if config.reduction == 'mean' else jnp.sum
  policy = reduce(-returns.rhos * log_probs * advantages)
  value = reduce(0.5 * jnp.square(returns.targets - values))
  entropies = negative_entropy(logits)
  if not config.entropy_on_replay:
    entropies *= transitions.is_online[:, None]
  entropy = reduce(entropies)
  total = (
    hypers.policy_weight * policy
    + hypers.entropy_weight * entropy
    + hypers.value_weight * value
  )
  return LossTerms(total, policy, value, entropy)
