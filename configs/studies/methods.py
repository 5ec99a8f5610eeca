"""Fixed hyper-parameters, standard and bootstrapped meta-gradients: who wins?

  bmg sweep --config=configs/studies/methods.py --variants=all \
      --games=atari5 --seeds=3 --workdir=runs/methods

The network and the frames are those of `make train`, for two CPU cores. Losses,
hyper-parameters, their bounds and how they are learned are the paper's. All
methods begin with the same values: those of the plain objective, which `none`
keeps, or, where they are bounds, 99 % of them.
"""

import ml_collections

from bmg.configs import atari_local, base

VARIANTS = ('none', 'mg', 'bmg_l1', 'bmg')


def get_config(variant: str = 'bmg') -> ml_collections.ConfigDict:
  """Returns the configuration of one method: 5 M frames of one game."""
  config = get_agent(variant)
  config.num_frames = 5_000_000
  config.evaluator.period_frames = 5_000_000
  config.evaluator.num_episodes = 30
  return config


def get_agent(method: str) -> ml_collections.ConfigDict:
  """Returns the agent, with one of `VARIANTS` to set its hyper-parameters."""
  config, paper = atari_local.get_config(), base.get_config()
  config.loss = paper.loss
  config.loss.trust_region = 0.0
  config.meta = paper.meta
  # A run is a fortieth of the paper's 416,667 updates, in which its learning
  # rate of 1e-3 goes 417 logits.
  config.meta.nominal_travel = 100.0
  if method == 'bmg':
    # The agent's own next updates make the target: four meta-learned updates
    # cost little more than four plain ones.
    config.meta.bootstrap_length = 4
    config.meta.target_data = 'online'
    config.replay.online_capacity = 24
  elif method != 'bmg_l1':
    config.meta.mode = method
  return config
