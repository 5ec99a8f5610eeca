"""The agent's losses as pure functions of outputs, data and hypers.

`actor_critic_loss` is the IMPALA / A2C loss of one policy and value, and
`agent_loss` that of all heads together. Flennerhag et al. (2022), appendix C;
Espeholt et al. (2018), section 4.2; Zahavy et al. (2020), section 3.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from bmg.agents import trust_region, types, vtrace
from bmg.configs import schema


class Transitions(NamedTuple):
  """What the loss needs of a batch of unrolls, besides network outputs."""

  # int32 [B, T], float32 [B, T] (clipped), float32 [B, T], float32 [B, T, A].
  actions: jax.Array
  rewards: jax.Array
  discounts: jax.Array
  behaviour_logits: jax.Array
  # float32 [B]: 1 for unrolls from the queue, 0 for those from replay.
  is_online: jax.Array


class HeadTerms(NamedTuple):
  """Scalars of one head: the weighted total, and its terms before weighting."""

  total: jax.Array
  policy: jax.Array
  value: jax.Array
  entropy: jax.Array
  # Means over states: V, v_t - V, and the share outside the trust region.
  mean_value: jax.Array
  td_error: jax.Array
  rejected: jax.Array


class LossTerms(NamedTuple):
  """Scalars of the whole loss."""

  total: jax.Array
  main: HeadTerms
  # Weighted parts of the total; 0 where there are no such heads.
  auxiliary: jax.Array
  outer_critic: jax.Array


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
  output: types.HeadOutput,
  frozen_output: types.HeadOutput,
  transitions: Transitions,
  hypers: types.Hypers,
  config: schema.Loss,
) -> HeadTerms:
  """Returns the loss of one policy and value (paper, appendix C).

  Per state, with rho_t, v_t and q_t from leaky V-trace,

    policy_weight * -rho_t log pi(a_t|s_t) (q_t - V_t)
    + entropy_weight * sum_a pi log pi + value_weight * 1/2 (v_t - V_t)^2

  (the 1/2 only with `config.half_value_loss`), or nothing at all where pi has
  left LASER's trust region.

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
  frozen_logits = frozen_output.logits[:, :-1]
  frozen_values = frozen_output.values[:, :-1]
  log_probs = log_prob(logits, transitions.actions)

  ratios = trusted = jnp.ones_like(log_probs)
  if config.returns == 'vtrace':
    behaviour = log_prob(transitions.behaviour_logits, transitions.actions)
    ratios = jnp.exp(log_prob(frozen_logits, transitions.actions) - behaviour)
  if config.trust_region > 0:
    kl = trust_region.implied_policy_kl(
      frozen_logits, transitions.behaviour_logits, config.rho_bar
    )
    trusted = (kl < config.trust_region).astype(kl.dtype)

  def sequence_vtrace(
    values: jax.Array,
    rewards: jax.Array,
    discounts: jax.Array,
    ratios: jax.Array,
    trusted: jax.Array,
  ) -> vtrace.VTraceOutput:
    return vtrace.leaky_vtrace(
      values,
      rewards,
      discounts * hypers.discount,
      ratios,
      hypers.trace_lambda,
      hypers.leak,
      hypers.cut_leak,
      trusted,
      config.rho_bar,
      config.c_bar,
    )

  returns = jax.vmap(sequence_vtrace)(
    frozen_output.values,
    transitions.rewards,
    transitions.discounts,
    ratios,
    trusted,
  )
  estimate = returns.q_estimates if config.advantage == 'q' else returns.targets
  advantages = estimate - frozen_values
  entropies = negative_entropy(logits)
  if not config.entropy_on_replay:
    entropies *= transitions.is_online[:, None]

  def reduce(losses: jax.Array) -> jax.Array:
    total = jnp.sum(trusted * losses)
    return total / losses.size if config.reduction == 'mean' else total

  policy = reduce(-returns.rhos * log_probs * advantages)
  squares = jnp.square(returns.targets - values)
  value = reduce(0.5 * squares if config.half_value_loss else squares)
  entropy = reduce(entropies)
  total = (
    hypers.policy_weight * policy
    + hypers.entropy_weight * entropy
    + hypers.value_weight * value
  )
  return HeadTerms(
    total=total,
    policy=policy,
    value=value,
    entropy=entropy,
    mean_value=jnp.mean(frozen_values),
    td_error=jnp.mean(returns.targets - frozen_values),
    rejected=jnp.mean(1.0 - trusted),
  )


def agent_loss(
  output: types.NetworkOutput,
  frozen_output: types.NetworkOutput,
  transitions: Transitions,
  hypers: types.Hypers,
  plain_hypers: types.Hypers,
  config: schema.Loss,
) -> LossTerms:
  """Returns the sum of all heads' losses (Zahavy et al., 2020, section 3.2).

  All learn from what the main policy does.

  Args:
    output: of the whole network, on [B, T + 1] states.
    frozen_output: see `actor_critic_loss`.
    transitions: the data.
    hypers: float [H] each: every head has its own.
    plain_hypers: scalars, for the outer critic.
    config: which returns, advantage, reduction.
  """
  by_head = jax.vmap(actor_critic_loss, in_axes=(0, 0, None, 0, None))
  heads = by_head(
    output.heads, frozen_output.heads, transitions, hypers, config
  )
  main = jax.tree.map(lambda x: x[0], heads)
  auxiliary = jnp.sum(heads.total[1:])
  outer_critic = jnp.zeros_like(main.total)
  if output.outer_values is not None:
    outer = actor_critic_loss(
      output.outer, frozen_output.outer, transitions, plain_hypers, config
    )
    outer_critic = plain_hypers.value_weight * outer.value
  total = main.total + auxiliary + outer_critic
  return LossTerms(total, main, auxiliary, outer_critic)
