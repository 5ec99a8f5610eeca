"""The paper's study: MAML and BMG on MiniImagenet (section 6, appendix D)."""

import ml_collections

from bmg.configs.few_shot import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the configuration: 5 ways, 5 shots."""
  config = base.get_config()
  config.data.kind = 'miniimagenet'
  config.data.num_classes = (64, 16, 20)
  config.task.update(num_ways=5, num_support=5, num_query=15)
  config.num_meta_steps = 60_000
  config.eval_period = 1_000
  config.num_eval_tasks = 600
  config.checkpoint_period_s = 300.0
  config.learners = base.learners(inner_learning_rate=0.01, meta_batch_size=4)
  return config
