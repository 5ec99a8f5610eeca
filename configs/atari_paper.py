"""BMG on Atari as in Flennerhag et al. (2022), section 5.2 and appendix C.

The defaults of `configs.schema` are the paper's; nothing is changed here but
the game.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the paper's configuration: 200 M frames of one game."""
  config = base.get_config()
  config.env.game = 'pong'
  return config
