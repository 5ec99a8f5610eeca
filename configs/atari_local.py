"""BMG on a laptop: small frames, a small network, one actor of many games.

For two CPU cores: the learner has one, the actor and the evaluator share the
other.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration: 10 M frames of one game."""
  config = base.get_config()
  config.num_frames = 10_000_000
  config.env.protocol = 'small42'
  config.agent.torso = 'small'
  config.agent.head_hidden = ()
  config.actors.num_actors = 1
  config.actors.envs_per_actor = 32
  config.replay.online_batch = 16
  config.replay.replay_batch = 16
  config.replay.online_capacity = 64
  config.replay.replay_capacity = 2_000
  config.evaluator.num_envs = 4
  return config
