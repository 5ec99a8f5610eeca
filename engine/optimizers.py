"""Optimisers whose updates can be differentiated anywhere, also at zero."""

import jax
import jax.numpy as jnp
import optax


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
  """Like `optax.clip_by_global_norm`, with a finite derivative at zero.

  Optax divides by the norm, whose derivative is infinite at an all-zero
  gradient; a meta-gradient through the clip then becomes NaN.
  """

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, optax.OptState]:
    del params
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(updates)]
    square_norm = sum(squares, start=jnp.zeros(()))
    too_long = square_norm > max_norm**2
    # The inner `where` keeps the unused branch's derivative finite.
    norm = jnp.sqrt(jnp.where(too_long, square_norm, 1.0))
    scale = jnp.where(too_long, max_norm / norm, 1.0)
    return jax.tree.map(lambda leaf: leaf * scale, updates), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def scale_by_rms(
  decay: float, epsilon: float, differentiate_second_moments: bool = True
) -> optax.GradientTransformation:
  """Returns RMSProp's step, with epsilon inside the root.

  Args:
    decay: of the second moments.
    epsilon: added to them.
    differentiate_second_moments: if not, derivatives of the step take them for
      constants, as in DeepMind's disco_rl. The step itself is the same.
  """
  scale = optax.scale_by_rms(decay, epsilon, eps_in_sqrt=True)
  if differentiate_second_moments:
    return scale

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, optax.OptState]:
    _, new = scale.update(*jax.lax.stop_gradient((updates, state)), params)
    steps = jax.tree.map(
      lambda g, nu: g * jax.lax.rsqrt(nu + epsilon), updates, new.nu
    )
    return steps, new

  return optax.GradientTransformation(scale.init, update)


def scale_by_adam(
  beta1: float,
  beta2: float,
  epsilon: float,
  differentiate_second_moments: bool = True,
) -> optax.GradientTransformation:
  """Returns Adam's step, with a finite derivative at a zero gradient.

  Args:
    beta1: decay of the first moments.
    beta2: decay of the second moments.
    epsilon: added to their root; its square, inside.
    differentiate_second_moments: as for `scale_by_rms`.
  """
  root_epsilon = epsilon**2
  scale = optax.scale_by_adam(beta1, beta2, epsilon, eps_root=root_epsilon)
  if differentiate_second_moments:
    return scale

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, optax.OptState]:
    _, new = scale.update(*jax.lax.stop_gradient((updates, state)), params)
    mu = optax.tree.update_moment(updates, state.mu, beta1, 1)
    steps = jax.tree.map(
      lambda m, nu: m / (jnp.sqrt(nu + root_epsilon) + epsilon),
      optax.tree.bias_correction(mu, beta1, new.count),
      optax.tree.bias_correction(new.nu, beta2, new.count),
    )
    return steps, new._replace(mu=mu)

  return optax.GradientTransformation(scale.init, update)
