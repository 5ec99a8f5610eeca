"""BMG on a laptop: small frames, a small network, one actor of many games.

For two CPU cores: the actor plays on one, the learner works on the other. There
fresh frames cost less than learning from them, so most of a batch is fresh.
"""

import ml_collections

from bmg.configs import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration: 16 M frames of one game."""
  config = base.get_config()
  config.num_frames = 16_000_000
  config.env.protocol = 'small42'

  config.agent.torso = 'small'
  config.agent.head_hidden = ()
  config.agent.auxiliary_heads = 0
  config.loss.update(trust_region=0.0, reduction='mean', half_value_loss=True)

  config.actors.num_actors = 1
  config.actors.envs_per_actor = 16
  config.actors.env_groups = 2
  config.replay.online_batch = 6
  config.replay.replay_batch = 2
  config.replay.online_capacity = 12
  config.replay.replay_capacity = 2_000

  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 5e-4
  config.optimizer.epsilon = 1e-5
  config.optimizer.max_grad_norm = 0.5

  config.meta.update(matching_reduction='mean', epsilon=1e-4)
  parameters = config.meta.parameters
  parameters.discount.update(initial=0.99, low=0.9, high=1.0, fixed=0.99)
  parameters.trace_lambda.update(initial=0.95, fixed=0.95)
  parameters.entropy_weight.update(initial=0.001, high=0.01, fixed=0.001)
  parameters.value_weight.update(initial=0.5, high=1.0, fixed=0.5)

  config.evaluator.period_frames = 2_000_000
  config.evaluator.num_envs = 8
  return config
