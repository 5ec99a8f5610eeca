"""(Leaky) V-trace targets, and lambda-returns as their on-policy case.

V-trace: Espeholt et al. (2018), section 4.1. Leaky V-trace: Zahavy et al.
(2020), section 3.3. Trust region: Schmitt et al. (2020, LASER), section 4.
Everything is for one sequence; `jax.vmap` adds a batch.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class VTraceOutput(NamedTuple):
  """Per step t: value target v_t, r + discount * v_{t+1}, and weight rho_t."""

  targets: jax.Array
  q_estimates: jax.Array
  rhos: jax.Array


def leaky_vtrace(
  values: jax.Array,
  rewards: jax.Array,
  discounts: jax.Array,
  ratios: jax.Array,
  trace_lambda: jax.Array | float = 1.0,
  leak: jax.Array | float = 1.0,
  cut_leak: jax.Array | float | None = None,
  trusted: jax.Array | None = None,
  rho_bar: float = 1.0,
  c_bar: float = 1.0,
) -> VTraceOutput:
  """Computes value targets from one sequence of T steps.

  With importance ratios e_t = pi(a_t|s_t) / mu(a_t|s_t),

    rho_t = leak * min(rho_bar, e_t) + (1 - leak) * e_t
    c_t = trace_lambda * (cut_leak * min(c_bar, e_t) + (1 - cut_leak) * e_t)
    delta_t = rho_t * (r_t + discount_t * V_{t+1} - V_t)
    v_t = V_t + trusted_t * (
        delta_t + discount_t * c_t * (v_{t+1} - V_{t+1})).

  leak = 1 is V-trace, leak = 0 full importance sampling; with all ratios 1 the
  targets are TD(lambda)'s returns. A return that comes to a state which is not
  trusted ends there, with the value of that state.

  No gradient is stopped here, on purpose: a meta-gradient must reach discounts,
  `trace_lambda` and `leak`.

  Args:
    values: float [T + 1], V_0 ... V_T.
    rewards: float [T].
    discounts: float [T], 0 at an episode's end.
    ratios: float [T], e_t.
    trace_lambda: scalar in [0, 1].
    leak: scalar in [0, 1].
    cut_leak: scalar in [0, 1]; by default `leak`.
    trusted: float [T], 1 or 0; by default all are 1.
    rho_bar: clip of the weights rho; sets the fixed point.
    c_bar: clip of the trace cuts c; sets the speed.

  Returns:
    A `VTraceOutput` of float [T] each.
  """
  chex.assert_rank([values, rewards, discounts, ratios], 1)
  chex.assert_equal_shape([rewards, discounts, ratios, values[1:]])

  def leaky_clip(bound: float, leak: jax.Array | float) -> jax.Array:
    return leak * jnp.minimum(bound, ratios) + (1.0 - leak) * ratios

  rhos = leaky_clip(rho_bar, leak)
  cuts = trace_lambda * leaky_clip(
    c_bar, leak if cut_leak is None else cut_leak
  )
  values_tm1, values_t = values[:-1], values[1:]
  deltas = rhos * (rewards + discounts * values_t - values_tm1)
  if trusted is not None:
    deltas, cuts = trusted * deltas, trusted * cuts

  def backwards(
    error: jax.Array, step: tuple[jax.Array, ...]
  ) -> tuple[jax.Array, jax.Array]:
    delta, discount, cut = step
    error = delta + discount * cut * error
    return error, error

  # The last step bootstraps from V_T itself, so that its error is zero.
  _, errors = jax.lax.scan(
    backwards,
    jnp.zeros_like(deltas[0]),
    (deltas, discounts, cuts),
    reverse=True,
  )
  targets = values_tm1 + errors
  targets_t = jnp.concatenate([targets[1:], values[-1:]])
  return VTraceOutput(targets, rewards + discounts * targets_t, rhos)
