"""BMG (KL-S): matches policies by both directions of the KL."""

import ml_collections

from bmg.configs import ablations


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration."""
  config = ablations.one_update_ahead()
  config.meta.matching = 'symmetric_kl'
  return config
