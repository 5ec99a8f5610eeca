"""The horizon K + L: by back-propagation (MG), by bootstrapping, by both."""

import ml_collections

from bmg.configs.two_colors import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the study: all agents see the history of rewards."""
  study = base.get_study()
  for steps in (1, 4, 8):
    agent = base.meta_gradient(base.actor_critic(), steps)
    study.agents[f'mg_k{steps}'] = base.with_context(agent, 'reward')
  for inner, length in ((1, 3), (3, 1), (1, 7), (4, 4), (7, 1)):
    agent = base.bootstrapped(base.actor_critic(), inner, length)
    study.agents[f'bmg_k{inner}_l{length}'] = base.with_context(agent, 'reward')
  return study
