"""The paper's ablations on Atari, section 5.2 and appendix C, as variants.

  python -m bmg train --config=configs/ablations.py:bmg_kl

The decomposition goes from STACX as a bootstrap to the paper's best agent:
`bmg_l2_sgd`, `bmg_l2`, `bmg_kl_v`, `bmg_kl_v_l4`. With
`--config.env.protocol=common84 --config.agent.torso=impala_2018`, say, any of
them runs on a smaller machine.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from bmg.configs import base

# Fields in which each differs from the paper's agent with L = 1.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
  # Zahavy et al. (2020): standard meta-gradients, the baseline.
  'stacx': {'meta.mode': 'mg'},
  # The same as a bootstrap, by the identity of the paper's section 3.
  'bmg_l2_sgd': {
    'meta.matching': 'l2',
    'meta.target_optimizer.name': 'sgd',
    'meta.target_optimizer.learning_rate': 0.5,
    'meta.target_optimizer.max_grad_norm': 0.0,
  },
  # With RMSProp in the target.
  'bmg_l2': {'meta.matching': 'l2'},
  'bmg_kl': {'meta.matching': 'kl'},
  # Both directions of the KL.
  'bmg_kl_s': {'meta.matching': 'symmetric_kl'},
  'bmg_v': {'meta.matching': 'value'},
  'bmg_kl_v': {'meta.matching': 'kl_value'},
  # The best in the paper, the same as `atari_paper`.
  'bmg_kl_v_l4': {
    'meta.matching': 'kl_value',
    'meta.bootstrap_length': 4,
    'optimizer.max_grad_norm': 0.2,
  },
}


def get_config(variant: str = 'bmg_kl_v_l4') -> ml_collections.ConfigDict:
  """Returns the configuration of one of `VARIANTS`."""
  config = base.get_config()
  config.env.game = 'pong'
  config.update_from_flattened_dict(VARIANTS[variant])
  return config
