"""The total return against the bootstrap length L, for both kinds of agent."""

import ml_collections

from bmg.configs.two_colors import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the study: K = 1 and 0, with the history of rewards."""
  study = base.get_study()
  for length in (1, 2, 4, 8, 16, 32, 64):
    agent = base.bootstrapped(base.actor_critic(), 1, length)
    study.agents[f'ac_l{length}'] = base.with_context(agent, 'reward')
  for length in (1, 4, 16, 32, 128):
    agent = base.meta_q_lambda(length)
    study.agents[f'q_l{length}'] = base.with_context(agent, 'reward')
  return study
