"""The hyper-parameters that the baselines and meta-learners are tuned over."""

import ml_collections

from bmg.configs.two_colors import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the study: four seeds of 2 M steps for every setting."""
  study = base.get_study()
  study.num_steps = 2_000_000
  study.num_seeds = 4
  agents = study.agents
  # After Luketina et al. (2022), section 4; names take no dots.
  for percent in (0, 10, 20, 40, 80):
    agent = agents[f'ac_fixed_{percent}_percent'] = base.actor_critic()
    agent.meta.fixed = percent / 100
  for percent in (1, 3, 5, 10, 15, 20, 30, 50):
    agent = agents[f'q_fixed_{percent}_percent'] = base.q_lambda()
    agent.meta.fixed = percent / 100
  # The fixed weight of its outer loss.
  for percent in (0, 10, 20, 40):
    agent = base.meta_gradient(base.actor_critic(), 1)
    agent.meta.fixed = percent / 100
    agents[f'ac_mg_reward_{percent}_percent'] = base.with_context(
      agent, 'reward'
    )
  for exponent in (-5, -4, -3):
    for name, agent in (
      ('ac_mg', base.meta_gradient(base.actor_critic(), 1)),
      ('ac_bmg', base.bootstrapped(base.actor_critic(), 1, 7)),
      ('q_bmg', base.meta_q_lambda(32)),
    ):
      agent.meta.learning_rate = 10.0**exponent
      name = f'{name}_reward_1e{exponent}'
      agents[name] = base.with_context(agent, 'reward')
  for length in (16, 32, 128):
    for rate in ('1e-4', '3e-4', '1e-3'):
      agent = base.meta_q_lambda(length)
      agent.learning_rate = float(rate)
      name = f'q_bmg_reward_l{length}_lr{rate}'
      agents[name] = base.with_context(agent, 'reward')
  for percent in (90, 95, 99):
    agent = base.meta_q_lambda(32)
    agent.discount = percent / 100
    name = f'q_bmg_reward_discount_{percent}_percent'
    agents[name] = base.with_context(agent, 'reward')
  return study
