"""LASER's trust region: which states importance sampling can still correct.

Schmitt, Hessel & Simonyan (2020), "Off-Policy Actor-Critic with Shared
Experience Replay", section 4.
"""

import jax
import jax.numpy as jnp


def implied_policy_kl(
  logits: jax.Array, behaviour_logits: jax.Array, rho_bar: float = 1.0
) -> jax.Array:
  """Returns KL(pi || implied policy) in nats: how much the clip distorts pi.

  With weights clipped at rho_bar, V-trace's fixed point is not the value of pi
  but of the policy that is implied by pi and the behaviour policy mu,

    pi_mu(a|s) proportional to min(rho_bar * mu(a|s), pi(a|s)).

  It depends on the state alone, not on the action that was sampled there.

  Args:
    logits: float [..., A], of pi.
    behaviour_logits: float [..., A], of mu.
    rho_bar: V-trace's clip.
  """
  log_pi = jax.nn.log_softmax(logits)
  log_mu = jax.nn.log_softmax(behaviour_logits)
  implied = jax.nn.log_softmax(jnp.minimum(log_mu + jnp.log(rho_bar), log_pi))
  return jnp.sum(jnp.exp(log_pi) * (log_pi - implied), axis=-1)
