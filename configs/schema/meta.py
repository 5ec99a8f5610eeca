"""What is meta-learned, and how."""

import dataclasses
import importlib.util
import math
from typing import Annotated

from bmg.configs.schema import checks, resume

MATCHING = ('kl', 'reverse_kl', 'symmetric_kl', 'value', 'kl_value', 'l2')
TARGETS = ('grounded', 'meta_learned', 'plain')
TARGET_DATA = ('replay', 'batch', 'online')
CONTEXT_INPUTS = ('reward', 'td_error', 'value')


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
  # The same for the trace alone. The paper shares one: while this one is not
  # learned, it is `leak`.
  cut_leak: MetaParameter = dataclasses.replace(
    _paper_parameter(high=1.0, fixed=1.0), learned=False
  )
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
    for name in ('discount', 'trace_lambda', 'leak', 'cut_leak'):
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
class TargetOptimizer:
  """The optimiser of the target's plain updates."""

  # 'agent': the agent's own, from the statistics that it has at x^(K). The
  # others have statistics of their own, kept from one meta-update to the next.
  name: Annotated[str, checks.one_of('agent', 'sgd', 'rmsprop', 'adam')] = (
    resume.fixed('agent')
  )
  # The rest does not apply to 'agent'. A max_grad_norm of 0 does not clip.
  learning_rate: checks.Positive = 1e-4
  max_grad_norm: checks.NonNegative = 0.0
  decay: checks.Fraction = 0.99
  beta1: checks.Fraction = 0.9
  beta2: checks.Fraction = 0.999
  epsilon: checks.Positive = 1e-4

  def __post_init__(self) -> None:
    checks.check_fields('meta.target_optimizer', self)


@dataclasses.dataclass(frozen=True)
class Context:
  """Meta-parameters as a function of how the agent has been doing lately.

  A small network takes the place of the table of logits (Flennerhag et al.,
  2022, section 5.1; Luketina et al., 2022).
  """

  # What of each of the last updates the network sees; () keeps the table.
  inputs: Annotated[tuple[str, ...], checks.one_of(*CONTEXT_INPUTS)] = (
    resume.fixed(())
  )
  # Updates that the network looks back on.
  length: checks.Count = resume.fixed(10)
  hidden: tuple[int, ...] = resume.fixed((32,))
  # Of the running mean square that each input is normalised by.
  decay: checks.Fraction = 0.99

  def __post_init__(self) -> None:
    checks.check_fields('meta.context', self)
    checks.check(
      all(size >= 1 for size in self.hidden),
      'meta.context.hidden',
      self.hidden,
      'every layer needs at least 1 unit',
    )


@dataclasses.dataclass(frozen=True)
class Meta:
  """Meta-learning: Flennerhag et al. (2022), section 3 and appendix C."""

  # 'bmg': bootstrapped meta-gradients; 'mg': standard meta-gradients; 'none':
  # fixed hyper-parameters, that is plain IMPALA / A2C.
  mode: Annotated[str, checks.one_of('bmg', 'mg', 'none')] = resume.fixed('bmg')
  # K: inner updates that the meta-gradient is back-propagated through.
  inner_updates: checks.Count = 1
  # Updates before those, which no meta-gradient sees: a cheaper departure from
  # the paper, which meta-learns with every update.
  updates_between: checks.Natural = 0
  # L: updates from the K-step parameters to the target (mode=bmg).
  bootstrap_length: checks.Count = 1
  # 'grounded': L - 1 meta-learned updates, then a plain one (the paper);
  # 'meta_learned' or 'plain': all L of the same kind.
  target: Annotated[str, checks.one_of(*TARGETS)] = 'grounded'
  # What the first L - 1 are made on. 'replay': fresh draws, used nowhere else
  # (the paper, on Atari); 'batch': the last inner batch, again and again;
  # 'online': the agent's own next batches. These L - 1 updates are then also
  # the agent's, so that nothing is thrown away (the paper, on two colors).
  target_data: Annotated[str, checks.one_of(*TARGET_DATA)] = 'replay'
  # Replay unrolls drawn afresh for each of the L - 1 extra updates.
  bootstrap_batch: checks.Count = 12
  target_optimizer: TargetOptimizer = TargetOptimizer()
  # The matching function: 'kl', 'reverse_kl', 'symmetric_kl', 'value',
  # 'kl_value', 'l2', or one's own as 'package.module:function'.
  matching: str = 'kl_value'
  # Weights of the KL divergence and of the squared value difference, where the
  # matching function has that term.
  policy_matching_weight: checks.NonNegative = 1.0
  value_matching_weight: checks.NonNegative = 0.25
  # Match in every n-th state of an unroll only; more than 1 is a cheaper
  # departure from the paper.
  matching_stride: checks.Count = 1
  # Mean or sum of the distances over the states that are matched in. Not
  # stated in the paper; two public replications of it sum.
  matching_reduction: Annotated[str, checks.one_of('mean', 'sum')] = 'sum'
  # Whether the meta-gradient passes through the second moments of the agent's
  # optimiser, or takes them for constants.
  differentiate_second_moments: bool = True
  # Weight of KL(new policy || old policy) in the outer loss of mode=mg. The
  # STACX paper has 1; BMG's list of settings does not have it.
  outer_kl_weight: checks.NonNegative = 0.0
  learning_rate: checks.Positive = 1e-3
  # If positive, replaces the learning rate by one for the run's length: a
  # logit moves so far in the whole run if it always takes the meta-optimiser's
  # nominal step in one direction. The paper's 1e-3 in 416,667 updates is 417.
  nominal_travel: checks.NonNegative = 0.0
  beta1: checks.Fraction = 0.9
  beta2: checks.Fraction = 0.999
  # STACX's, whose settings the paper took over: "ADAM with default settings".
  epsilon: checks.Positive = 1e-8
  max_grad_norm: checks.Positive = 0.3
  context: Context = Context()
  parameters: MetaParameters = resume.fixed(MetaParameters())

  def __post_init__(self) -> None:
    checks.check_fields('meta', self)
    _check_matching(self.matching)
    checks.check(
      (self.target, self.target_data) != ('plain', 'online'),
      'meta.target_data',
      self.target_data,
      "must not be 'online' with meta.target='plain': the agent's own updates "
      'are the meta-learned ones',
    )
    if self.mode != 'none':
      checks.check(
        bool(self.parameters.learned),
        'meta.mode',
        self.mode,
        'needs at least one meta-parameter with learned=True '
        "(or meta.mode='none')",
      )
    if self.mode == 'bmg':
      self._check_weights()

  def _check_weights(self) -> None:
    """Some term of the matching function must count."""
    policy, value = self.policy_matching_weight, self.value_matching_weight
    if self.matching == 'kl_value':
      checks.check(
        policy + value > 0,
        'meta.policy_matching_weight',
        policy,
        'and meta.value_matching_weight must not both be 0',
      )
    for name, weight, users in (
      ('policy', policy, ('kl', 'reverse_kl', 'symmetric_kl')),
      ('value', value, ('value',)),
    ):
      checks.check(
        self.matching not in users or weight > 0,
        f'meta.{name}_matching_weight',
        weight,
        f'must be positive with meta.matching={self.matching!r}',
      )

  @property
  def num_bootstrap_batches(self) -> int:
    """Extra replay batches that one meta-update consumes."""
    if self.mode != 'bmg' or self.target_data != 'replay':
      return 0
    return self.bootstrap_length - 1

  @property
  def updates_per_step(self) -> int:
    """The agent's own updates from one meta-update to the next."""
    if self.mode == 'none':
      return self.inner_updates
    updates = self.updates_between + self.inner_updates
    if self.mode == 'bmg' and self.target_data == 'online':
      updates += self.bootstrap_length - 1
    return updates


def _check_matching(name: str) -> None:
  if name in MATCHING:
    return
  module, colon, function = name.partition(':')
  if not (colon and module and function.isidentifier()):
    raise checks.ConfigError(
      'meta.matching',
      name,
      "is neither a known choice nor 'package.module:function'",
      MATCHING,
    )
  try:
    found = importlib.util.find_spec(module) is not None
  except (ImportError, ValueError):
    found = False
  checks.check(
    found, 'meta.matching', name, f'there is no module {module!r} to import'
  )
