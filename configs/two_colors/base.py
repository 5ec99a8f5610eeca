"""What the studies have in common: an empty one, and the two kinds of agent."""

import dataclasses

import ml_collections

from bmg.configs.two_colors import schema


def get_study() -> ml_collections.ConfigDict:
  """Returns a study of ten seeds and 10 M steps, as yet without agents."""
  return ml_collections.ConfigDict(dataclasses.asdict(schema.Study()))


def actor_critic() -> ml_collections.ConfigDict:
  """Returns the paper's actor-critic, with a fixed entropy weight of 0.2.

  With one-step returns: docs/two_colors.md says what longer ones do.
  """
  config = ml_collections.ConfigDict(dataclasses.asdict(schema.Agent()))
  config.initial_scale = 1 / 3
  config.return_lambda = 0.0
  config.meta.fixed = 0.2
  config.meta.initial = 0.3
  config.meta.learning_rate = 1e-3
  return config


def q_lambda() -> ml_collections.ConfigDict:
  """Returns the paper's Q(lambda), with a fixed epsilon of 0.1.

  But for its discount and learning rate, 0.99 and 3e-5: docs/two_colors.md says
  what they do.
  """
  config = ml_collections.ConfigDict(dataclasses.asdict(schema.Agent()))
  config.kind = 'q_lambda'
  config.initial_scale = 1 / 3
  config.discount = 0.8
  config.learning_rate = 1e-4
  config.meta.fixed = 0.1
  config.meta.inner_updates = 0
  config.meta.bootstrap_length = 16
  config.meta.context.length = 50
  return config


def meta_q_lambda(length: int) -> ml_collections.ConfigDict:
  """Returns Q(lambda) whose epsilon is learned by BMG with that L."""
  config = bootstrapped(q_lambda(), 0, length)
  config.meta.learning_rate = 3e-4
  return config


def meta_gradient(
  config: ml_collections.ConfigDict, inner_updates: int
) -> ml_collections.ConfigDict:
  """Has `config` learn by standard meta-gradients through K updates."""
  config.meta.mode = 'mg'
  config.meta.inner_updates = inner_updates
  config.meta.fixed = 0.2
  return config


def bootstrapped(
  config: ml_collections.ConfigDict, inner_updates: int, length: int
) -> ml_collections.ConfigDict:
  """Has `config` learn by BMG with that K and L.

  The plain step that ends the actor-critic's target has no entropy bonus.
  """
  config.meta.mode = 'bmg'
  config.meta.inner_updates = inner_updates
  config.meta.bootstrap_length = length
  config.meta.fixed = 0.0
  return config


def with_context(
  config: ml_collections.ConfigDict, *inputs: str
) -> ml_collections.ConfigDict:
  """Has a network give the hyper-parameter from recent statistics."""
  config.meta.context.inputs = inputs
  return config
