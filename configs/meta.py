"""What is meta-learned, and how."""

import dataclasses
import math

from configs import checks


@dataclasses.dataclass(frozen=True)
class MetaParameter:
  """One hyper-parameter of the loss.

  The learned value is `low + (high - low) * sigmoid(logit)` and starts at
  `initial`. `fixed` is its value in the plain objective: the last step of a
  bootstrapped target, the outer loss of `mode=mg`, all of `mode=none`. A
  meta-parameter that is not learned has its fixed value everywhere.
  """

  learned: bool
  initial: float
  low: float
  high: float
  fixed: float


def _paper_parameter(high: float, fixed: float) -> MetaParameter:
  """STACX's parametrisation: logit 4.6 below `high` (paper, appendix C)."""
  initial = high / (1.0 + math.exp(-4.6))
  return MetaParameter(
    learned=True, initial=initial, low=0.0, high=high, fixed=fixed
  )


@dataclasses.dataclass(frozen=True)
class MetaParameters:
  """Every hyper-parameter of the loss that can be meta-learned."""

  discount: MetaParameter = _paper_parameter(high=1.0, fixed=0.995)
  trace_lambda: MetaParameter = _paper_parameter(high=1.0, fixed=1.0)
  # Leaky V-trace: 1 clips the importance weights fully, 0 not at all.
  leak: MetaParameter = _paper_parameter(high=1.0, fixed=1.0)
  policy_weight: MetaParameter = _paper_parameter(high=1.0, fixed=1.0)
  entropy_weight: MetaParameter = _paper_parameter(high=0.01, fixed=0.01)
  value_weight: MetaParameter = _paper_parameter(high=0.25, fixed=0.25)

  def __post_init__(self) -> None:
    for spec in dataclasses.fields(self):
      parameter = getattr(self, spec.name)
      field = f'meta.parameters.{spec.name}'
      checks.check(
        parameter.low < parameter.high,
        f'{field}.low',
        parameter.low,
        f'must be below {field}.high = {parameter.high}',
      )
      checks.check(
        parameter.low < parameter.initial < parameter.high,
        f'{field}.initial',
        parameter.initial,
        f'must lie strictly between {field}.low = {parameter.low} and '
        f'{field}.high = {parameter.high}',
      )
    for name in ('discount', 'trace_lambda', 'leak'):
      for bound in ('low', 'high', 'fixed'):
        value = getattr(getattr(self, name), bound)
        checks.check(
          0.0 <= value <= 1.0,
          f'meta.parameters.{name}.{bound}',
          value,
          'must lie in [0, 1]',
        )

  @property
  def learned(self) -> tuple[str, ...]:
    """Names of the meta-parameters that are learned, in order."""
    return tuple(
      spec.name
      for spec in dataclasses.fields(self)
      if getattr(self, spec.name).learned
    )


@dataclasses.dataclass(frozen=True)
class Meta:
  """Meta-learning: Flennerhag et al. (2022), section 3 and appendix C."""

  # 'bmg': bootstrapped meta-gradients; 'mg': standard meta-gradients; 'none':
  # fixed hyper-parameters, that is plain IMPALA / A2C.
  mode: str = 'bmg'
  # K: inner updates that the meta-gradient is back-propagated through.
  inner_updates: int = 1
  # L: updates from the K-step parameters to the target (mode=bmg).
  bootstrap_length: int = 1
  # Replay unrolls drawn afresh for each of the L - 1 extra updates.
  bootstrap_batch: int = 12
  # Weights of KL(target policy || policy) and of the squared value difference.
  policy_matching_weight: float = 1.0
  value_matching_weight: float = 0.25
  learning_rate: float = 1e-3
  beta1: float = 0.9
  beta2: float = 0.999
  epsilon: float = 1e-4
  max_grad_norm: float = 0.3
  parameters: MetaParameters = MetaParameters()

  def __post_init__(self) -> None:
    checks.check_choice('meta.mode', self.mode, ('bmg', 'mg', 'none'))
    checks.GroupChecker('meta', self).at_least(
      1, 'inner_updates', 'bootstrap_length', 'bootstrap_batch'
    )
    checks.GroupChecker('meta', self).at_least(
      0, 'policy_matching_weight', 'value_matching_weight'
    )
    checks.GroupChecker('meta', self).positive(
      'learning_rate', 'epsilon', 'max_grad_norm'
    )
    checks.GroupChecker('meta', self).in_unit_interval('beta1', 'beta2')
    if self.mode != 'none':
      checks.check(
        bool(self.parameters.learned),
        'meta.mode',
        self.mode,
        'needs at least one meta-parameter with learned=True '
        "(or meta.mode='none')",
      )
    if self.mode == 'bmg':
      checks.check(
        self.policy_matching_weight + self.value_matching_weight > 0,
        'meta.policy_matching_weight',
        self.policy_matching_weight,
        'and meta.value_matching_weight must not both be 0',
      )

  @property
  def num_bootstrap_batches(self) -> int:
    """Extra replay batches that one meta-update consumes, L - 1."""
    return self.bootstrap_length - 1 if self.mode == 'bmg' else 0
