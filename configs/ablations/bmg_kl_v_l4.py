"""BMG (KL & V, L = 4): the best in the paper, the same as `atari_paper`."""

import ml_collections

from bmg.configs import ablations


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration."""
  config = ablations.one_update_ahead()
  config.meta.matching = 'kl_value'
  config.meta.bootstrap_length = 4
  config.optimizer.max_grad_norm = 0.2
  return config
