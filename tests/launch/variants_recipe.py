"""A recipe with variants."""

import ml_collections

from bmg.configs import atari_local

VARIANTS = ('none', 'mg', 'bmg', 'bmg-l4')


def get_config(variant: str = 'bmg') -> ml_collections.ConfigDict:
  config = atari_local.get_config()
  config.meta.mode, _, length = variant.partition('-l')
  config.meta.bootstrap_length = int(length or 1)
  return config
