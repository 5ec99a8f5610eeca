"""BMG (KL & V): matches policies and values, one update ahead."""

import ml_collections

from bmg.configs import ablations


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration."""
  config = ablations.one_update_ahead()
  config.meta.matching = 'kl_value'
  return config
