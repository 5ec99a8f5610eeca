"""Meta-gradients for any update rule. Needs only JAX and Optax.

`meta_gradients` has what most users need, and this package its public names;
`mixed_mode` makes gradients that are cheap to differentiate again, `optimizers`
steps that can be differentiated anywhere.
"""

from bmg.engine.meta_gradients import (
  AgentState,
  Loss,
  MatchingFunction,
  MetaData,
  MetaLearner,
  MetaState,
  MetaStepOutput,
  OuterLoss,
  OuterResult,
  PyTree,
  Target,
  TargetBootstrap,
  UpdateAux,
  UpdateRule,
  apply_updates,
  bootstrapped_loss,
  constant_target,
  direct_loss,
  gradient_update,
  grounded_bootstrap,
  learned_bootstrap,
  meta_learner,
  plain_bootstrap,
  repeated,
)

__all__ = [
  'AgentState',
  'Loss',
  'MatchingFunction',
  'MetaData',
  'MetaLearner',
  'MetaState',
  'MetaStepOutput',
  'OuterLoss',
  'OuterResult',
  'PyTree',
  'Target',
  'TargetBootstrap',
  'UpdateAux',
  'UpdateRule',
  'apply_updates',
  'bootstrapped_loss',
  'constant_target',
  'direct_loss',
  'gradient_update',
  'grounded_bootstrap',
  'learned_bootstrap',
  'meta_learner',
  'plain_bootstrap',
  'repeated',
]
