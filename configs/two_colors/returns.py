"""One-step returns against longer ones: what noise a meta-gradient bears."""

import ml_collections

from bmg.configs.two_colors import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the study: four seeds of 2 M steps for every setting."""
  study = base.get_study()
  study.num_steps = 2_000_000
  study.num_seeds = 4
  # With a value weight of 1, critics of longer returns diverge.
  for percent, value_weight in ((0, 1.0), (50, 0.5), (100, 0.25), (100, 1.0)):
    fixed = base.actor_critic()
    fixed.return_lambda = percent / 100
    fixed.value_weight = value_weight
    bmg = base.bootstrapped(fixed.copy_and_resolve_references(), 1, 7)
    name = f'lambda_{percent}_value_{round(100 * value_weight)}'
    study.agents[f'fixed_{name}'] = fixed
    study.agents[f'bmg_{name}'] = base.with_context(bmg, 'reward')
  return study
