"""STACX (Zahavy et al., 2020): standard meta-gradients, the baseline."""

import ml_collections

from bmg.configs import ablations


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration."""
  config = ablations.one_update_ahead()
  config.meta.mode = 'mg'
  return config
