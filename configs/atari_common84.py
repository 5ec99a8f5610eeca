"""The paper's agent on the usual 84x84 grey frames, with the IMPALA network.

Four times fewer pixels in one channel instead of three: for comparing with
published DQN and IMPALA results, and for a single machine with an accelerator.
"""

import ml_collections

from bmg.configs import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration: 16 actors of 4 games each."""
  config = base.get_config()
  config.env.protocol = 'common84'
  config.agent.torso = 'impala_2018'
  config.actors.num_actors = 16
  config.actors.envs_per_actor = 4
  return config
