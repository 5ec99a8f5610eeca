"""MAML and BMG on scikit-learn's digits: images, and nothing to download."""

import ml_collections

from bmg.configs.few_shot import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration: 5 ways, 1 shot."""
  config = base.get_config()
  config.data.kind = 'digits'
  config.task.update(num_ways=5, num_support=1, num_query=5)
  config.network.update(width=16, num_blocks=3)
  config.learners = base.learners(inner_learning_rate=0.1, meta_batch_size=4)
  return config
