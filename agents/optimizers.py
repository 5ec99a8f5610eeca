"""The agent's optimisers, as the configuration says."""

import optax

from bmg.configs import schema
from bmg.engine import optimizers


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
  return optax.chain(
    optimizers.clip_by_global_norm(config.max_grad_norm),
    _scale(config, differentiate_second_moments),
    optax.scale_by_learning_rate(schedule),
  )


def make_target_optimizer(
  config: schema.TargetOptimizer,
) -> optax.GradientTransformation | None:
  """Returns the optimiser of a target's plain updates; None: the agent's."""
  if config.name == 'agent':
    return None
  clip = (
    optimizers.clip_by_global_norm(config.max_grad_norm)
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
    optimizers.clip_by_global_norm(config.max_grad_norm),
    optax.adam(learning_rate, config.beta1, config.beta2, config.epsilon),
  )


def _scale(
  config: schema.Optimizer | schema.TargetOptimizer,
  differentiate_second_moments: bool = True,
) -> optax.GradientTransformation:
  if config.name == 'rmsprop':
    return optimizers.scale_by_rms(
      config.decay, config.epsilon, differentiate_second_moments
    )
  if config.name == 'adam':
    return optimizers.scale_by_adam(
      config.beta1, config.beta2, config.epsilon, differentiate_second_moments
    )
  return optax.identity()
