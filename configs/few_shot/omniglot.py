"""MAML and BMG on Omniglot, with the settings of MAML's paper."""

import ml_collections

from bmg.configs.few_shot import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration: 5 ways, 1 shot."""
  config = base.get_config()
  config.data.kind = 'omniglot'
  config.data.num_classes = (964, 659)
  config.task.update(num_ways=5, num_support=1, num_query=5)
  config.network.width = 64
  config.num_meta_steps = 40_000
  config.eval_period = 1_000
  config.num_eval_tasks = 600
  config.checkpoint_period_s = 300.0
  config.learners = base.learners(inner_learning_rate=0.4, meta_batch_size=32)
  return config
