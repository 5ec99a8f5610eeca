"""The paper's ablations on Atari: section 5.2, and appendix C.

With `--config.env.protocol=common84 --config.agent.torso=impala_2018`, say, any
of them runs on a smaller machine.
"""

import ml_collections

from bmg.configs import base


def one_update_ahead() -> ml_collections.ConfigDict:
  """Returns what they share: the paper's agent, with L = 1."""
  config = base.get_config()
  config.env.game = 'pong'
  return config
