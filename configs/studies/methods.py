"""Fixed hyper-parameters, standard and bootstrapped meta-gradients: who wins?

  python -m bmg sweep --config=configs/studies/methods.py --variants=all \
      --games=atari5 --seeds=3 --workdir=runs/methods

All variants are the recipe of `make train`, and begin with the same
hyper-parameters, but for those whose initial value has to lie below a bound.
"""

import ml_collections

from bmg.configs import atari_local

VARIANTS = ('none', 'mg', 'bmg_l1', 'bmg')


def get_config(variant: str = 'bmg') -> ml_collections.ConfigDict:
  """Returns the configuration of one method: 5 M frames of one game."""
  config = atari_local.get_config()
  config.num_frames = 5_000_000
  config.evaluator.period_frames = 5_000_000
  config.evaluator.num_episodes = 30
  use_method(config, variant)
  return config


def use_method(config: ml_collections.ConfigDict, method: str) -> None:
  """Has one of `VARIANTS` set the hyper-parameters."""
  if method == 'bmg_l1':
    config.meta.bootstrap_length = 1
    config.meta.target_data = 'replay'
    method = 'bmg'
  config.meta.mode = method
