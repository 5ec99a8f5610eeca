"""BMG (L2, SGD target): STACX again, as a bootstrap.

The decomposition begins here; `bmg_l2`, `bmg_kl_v` and `bmg_kl_v_l4` each add a
part.
"""

import ml_collections

from bmg.configs import ablations


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration."""
  config = ablations.one_update_ahead()
  config.meta.matching = 'l2'
  config.meta.target_optimizer.update(
    name='sgd', learning_rate=0.5, max_grad_norm=0.0
  )
  return config
