"""Every kind of agent, as in Luketina et al. (2022), table 1. The default."""

import ml_collections

from bmg.configs.two_colors import base


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
  agents.q_bmg = base.meta_q_lambda(32)
  # Without a history, epsilon follows the phases by learning alone.
  agents.q_bmg.meta.learning_rate = 1e-2
  agents.q_bmg_reward = base.with_context(base.meta_q_lambda(32), 'reward')
  return study
