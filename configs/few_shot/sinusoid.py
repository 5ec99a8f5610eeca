"""MAML and BMG on sinusoids, with the settings of MAML's paper."""

import ml_collections

from bmg.configs.few_shot import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration: regression from 10 points."""
  config = base.get_config()
  config.data.kind = 'sinusoid'
  config.task.update(num_ways=1, num_support=10, num_query=10)
  config.num_meta_steps = 30_000
  config.eval_period = 1_000
  config.num_eval_tasks = 500
  # MAML learns an initialisation that is as steep as K steps can bear; ten more
  # of the same rate can then diverge.
  config.learners = base.learners(
    inner_learning_rate=0.01, target_learning_rate=0.003, meta_batch_size=25
  )
  return config
