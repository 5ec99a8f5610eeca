"""How fast the world may change: --config.env.switch_interval=50000, say.

Luketina et al. (2022) try 10,000 to 500,000 steps.
"""

import ml_collections

from bmg.configs.two_colors import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the study: the actor-critics, in a world of half the interval."""
  study = base.get_study()
  study.env.switch_interval = 50_000
  agents = study.agents
  agents.ac_fixed = base.actor_critic()
  agents.ac_mg_reward = base.with_context(
    base.meta_gradient(base.actor_critic(), 1), 'reward'
  )
  agents.ac_bmg_reward = base.with_context(
    base.bootstrapped(base.actor_critic(), 1, 7), 'reward'
  )
  return study
