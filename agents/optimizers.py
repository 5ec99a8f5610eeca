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
  config: schema.Optimizer, total_updates: int
) -> optax.GradientTransformation:
  """Returns the agent's optimiser: clip, scale, step, anneal.

  The second moment of RMSProp and Adam is differentiated with the rest: the
  update that the agent makes is the update that the meta-gradient sees.

  Args:
    config: which optimiser and its settings.
    total_updates: after so many updates a linear schedule reaches 0.
  """
  if config.schedule == 'linear':
    schedule = optax.linear_schedule(config.learning_rate, 0.0, total_updates)
  else:
    schedule = optax.constant_schedule(config.learning_rate)
  return optax.chain(
    clip_by_global_norm(config.max_grad_norm),
    _scale(config),
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


def make_meta_optimizer(config: schema.Meta) -> optax.GradientTransformation:
  """Returns the meta-optimiser: clip, then Adam (paper, appendix C)."""
  return optax.chain(
    clip_by_global_norm(config.max_grad_norm),
    optax.adam(
      config.learning_rate, config.beta1, config.beta2, config.epsilon
    ),
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
