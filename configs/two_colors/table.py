"""Every kind of agent, as in Luketina et al. (2022), table 1. The default."""

import ml_collections

from configs.two_colors import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the study: ten seeds of 10 M steps each."""
  study = base.get_study()
  agents = study.agents
  agents.ac_fixed = base.actor_critic()
  agents.ac_mg = base.meta_gradient(base.actor_critic(), 1)
  agents.ac_bmg = base.bootstrapped(base.actor_critic(), 1, 7)
  agents.ac_mg_reward = base.with_context(
    base.meta_gradient(base.actor_critic(), 1), 'reward'
  )
  agents.ac_bmg_reward = base.with_context(
    base.bootstrapped(base.actor_critic(), 1, 7), 'reward'
  )
  agents.q_fixed = base.q_lambda()
  agents.q_bmg = base.bootstrapped(base.q_lambda(), 0, 16)
  agents.q_bmg_reward = base.with_context(
    base.bootstrapped(base.q_lambda(), 0, 16), 'reward'
  )
  return study
