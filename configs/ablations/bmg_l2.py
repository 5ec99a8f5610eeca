"""BMG (L2): matches parameters; STACX lacks only RMSProp in the target."""

import ml_collections

from bmg.configs import ablations


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration."""
  config = ablations.one_update_ahead()
  config.meta.matching = 'l2'
  return config
