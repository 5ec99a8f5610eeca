"""Fixed hyper-parameters, standard and bootstrapped meta-gradients: who wins?

  python -m bmg sweep --config=configs/studies/methods.py --variants=all \
      --games=atari5 --seeds=3 --workdir=runs/methods

All variants are the agent of `make train`, and begin with the same
hyper-parameters, but for those whose initial value has to lie below a bound.
"""

import ml_collections

from bmg.configs import atari_local

VARIANTS = ('none', 'mg', 'bmg_l1', 'bmg')


def get_config(variant: str = 'bmg') -> ml_collections.ConfigDict:
  """Returns the configuration of one method: 5 M frames of one game."""
  config = get_agent(variant)
  config.num_frames = 5_000_000
  config.evaluator.period_frames = 5_000_000
  config.evaluator.num_episodes = 30
  return config


def get_agent(method: str) -> ml_collections.ConfigDict:
  """Returns the agent with one of `VARIANTS` to set its hyper-parameters.

  It differs from `make train`'s in what docs/algorithm.md says of the step
  sizes of meta-parameters: sums, which are always clipped, a small epsilon, a
  learning rate for the run's length, and bounds that leave room above.
  """
  config = atari_local.get_config()
  config.loss.reduction = 'sum'
  config.replay.online_capacity = 24
  parameters = config.meta.parameters
  parameters.discount.low = 0.0
  parameters.entropy_weight.high = 0.1
  parameters.value_weight.high = 2.0
  config.meta.update(
    matching_reduction='sum', epsilon=1e-8, nominal_travel=80.0
  )
  if method == 'bmg':
    # The agent's own next updates make the target: four meta-learned updates
    # cost little more than four plain ones.
    config.meta.update(bootstrap_length=4, target_data='online')
  elif method != 'bmg_l1':
    config.meta.mode = method
  return config
