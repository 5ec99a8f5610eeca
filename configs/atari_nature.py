"""The Nature DQN network on 84x84 grey frames: to compare with other systems.

What they have in common: one head, every frame learned from once, RMSProp or
Adam, two CPU cores or more.
"""

import ml_collections

from bmg.configs import atari_local


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration: one actor of 16 games, no replay."""
  config = atari_local.get_config()
  config.env.protocol = 'common84'
  config.agent.torso = 'nature'
  config.replay.online_batch = 8
  config.replay.replay_batch = 0
  config.replay.online_capacity = 16
  return config
