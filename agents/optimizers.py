"""Optimisers whose updates can be differentiated anywhere, also at zero."""

import jax
import jax.numpy as jnp
import optax

from configs import schema


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


def make_optimizer(
  config: schema.Optimizer,
  total_updates: int,
  differentiate_second_moments: bool = True,
) -> optax.GradientTransformation:
  """Returns the agent's optimiser: clip, scale, step, anneal.

  Args:
    config: which optimiser and its settings.
    total_updates: after so many updates a linear schedule reaches 0.
    differentiate_second_moments: whether those of RMSProp and Adam are
      differentiated with the rest, so that the meta-gradient is that of the
      update which the agent makes. If not, they are constants of it, as in
      DeepMind's disco_rl. The update itself is the same.
  """
  if config.schedule == 'linear':
    schedule = optax.linear_schedule(config.learning_rate, 0.0, total_updates)
  else:
    schedule = optax.constant_schedule(config.learning_rate)
  scale = _scale(config)
  if not differentiate_second_moments:
    scale = _constant_second_moments(config, scale)
  return optax.chain(
    clip_by_global_norm(config.max_grad_norm),
    scale,
    optax.scale_by_learning_rate(schedule),
  )


def make_target_optimizer(
  config: schema.TargetOptimizer,
) -> optax.GradientTransformation | None:
  """Returns the optimiser of a target's plain updates; None: the agent's."""
  if config.name == 'agent':
    return None
  clip = (
    clip_by_global_norm(config.max_grad_norm)
    if config.max_grad_norm > 0
    else optax.identity()
  )
  return optax.chain(
    clip, _scale(config), optax.scale_by_learning_rate(config.learning_rate)
  )


def make_meta_optimizer(
  config: schema.Meta, learning_rate: float
) -> optax.GradientTransformation:
  """Returns the meta-optimiser: clip, then Adam (paper, appendix C).

  Args:
    config: its settings.
    learning_rate: from `schema.Config.meta_learning_rate`.
  """
  return optax.chain(
    clip_by_global_norm(config.max_grad_norm),
    optax.adam(learning_rate, config.beta1, config.beta2, config.epsilon),
  )


def _scale(
  config: schema.Optimizer | schema.TargetOptimizer,
) -> optax.GradientTransformation:
  if config.name == 'rmsprop':
    return optax.scale_by_rms(config.decay, config.epsilon, eps_in_sqrt=True)
  if config.name == 'adam':
    return optax.scale_by_adam(
      config.beta1, config.beta2, config.epsilon, eps_root=config.epsilon**2
    )
  return optax.identity()


def _constant_second_moments(
  config: schema.Optimizer, scale: optax.GradientTransformation
) -> optax.GradientTransformation:
  """Returns `scale`, RMSProp's or Adam's, with constant second moments.

  The updates and the state are the same. Their derivatives take the second
  moments for constants.
  """
  if config.name == 'sgd':
    return scale

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, optax.OptState]:
    _, new = scale.update(*jax.lax.stop_gradient((updates, state)), params)
    if config.name == 'rmsprop':
      steps = jax.tree.map(
        lambda g, nu: g * jax.lax.rsqrt(nu + config.epsilon), updates, new.nu
      )
      return steps, new
    mu = optax.tree.update_moment(updates, state.mu, config.beta1, 1)
    root_epsilon = config.epsilon**2
    steps = jax.tree.map(
      lambda m, nu: m / (jnp.sqrt(nu + root_epsilon) + config.epsilon),
      optax.tree.bias_correction(mu, config.beta1, new.count),
      optax.tree.bias_correction(new.nu, config.beta2, new.count),
    )
    return steps, new._replace(mu=mu)

  return optax.GradientTransformation(scale.init, update)
