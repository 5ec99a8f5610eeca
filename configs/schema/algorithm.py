"""The inner learning algorithm: network, loss and optimiser."""

import dataclasses
from typing import Annotated

from bmg.configs.schema import checks, resume

TORSOS = ('impala_paper', 'impala_2018', 'nature', 'small')


@dataclasses.dataclass(frozen=True)
class Agent:
  """The network: a shared torso, and MLPs for policies and values."""

  torso: Annotated[str, checks.one_of(*TORSOS)] = resume.fixed('impala_paper')
  # 'bfloat16' computes the torso in half the precision, from float32
  # parameters: faster on accelerators, a departure from the paper.
  torso_dtype: Annotated[str, checks.one_of('float32', 'bfloat16')] = 'float32'
  # Hidden layers of each head; () makes the heads linear.
  head_hidden: tuple[int, ...] = resume.fixed((256, 256))
  # STACX's auxiliary tasks: pairs of a policy and a value that only learn, each
  # with hyper-parameters of its own.
  auxiliary_heads: checks.Natural = resume.fixed(2)
  # A second value of the main policy, learned with the fixed hyper-parameters,
  # for the plain objective (Bonnet et al., 2022). Not in the paper.
  outer_critic: bool = resume.fixed(False)

  def __post_init__(self) -> None:
    checks.check_fields('agent', self)
    checks.check(
      all(size >= 1 for size in self.head_hidden),
      'agent.head_hidden',
      self.head_hidden,
      'every layer needs at least 1 unit',
    )

  @property
  def num_heads(self) -> int:
    """The main head and the auxiliary ones, H."""
    return 1 + self.auxiliary_heads


@dataclasses.dataclass(frozen=True)
class Loss:
  """The actor-critic loss, apart from its (meta-learned) hyper-parameters."""

  # 'vtrace' corrects for off-policy data; 'lambda' ignores the behaviour
  # policy and gives A2C's lambda-returns (n-step returns at lambda = 1).
  returns: Annotated[str, checks.one_of('vtrace', 'lambda')] = 'vtrace'
  rho_bar: checks.Positive = 1.0
  c_bar: checks.Positive = 1.0
  # LASER's threshold b: states whose policy is so far (in nats) from what
  # importance sampling can make of the behaviour policy are not learned from.
  # 0 learns from all.
  trust_region: checks.NonNegative = 2.0
  # Sum or mean over batch and time. Not stated in the paper; IMPALA sums, and
  # only sums are long enough for the paper's clipping to act.
  reduction: Annotated[str, checks.one_of('mean', 'sum')] = 'sum'
  # Whether the value loss is half the squared error, as IMPALA's, or all of it.
  # STACX's weight of 0.25 is IMPALA's 0.5 x 1/2, so that its loss most likely
  # has no 1/2.
  half_value_loss: bool = False
  # 'q': r + discount * v_{t+1} - V (IMPALA); 'target': v_t - V (BMG).
  advantage: Annotated[str, checks.one_of('q', 'target')] = 'q'
  # LASER applies the entropy bonus to online data alone.
  entropy_on_replay: bool = True

  def __post_init__(self) -> None:
    checks.check_fields('loss', self)
    checks.check(
      self.returns == 'vtrace' or self.trust_region == 0,
      'loss.trust_region',
      self.trust_region,
      "must be 0 with loss.returns='lambda', which ignores the behaviour "
      'policy',
    )
    checks.check(
      self.rho_bar >= self.c_bar,
      'loss.rho_bar',
      self.rho_bar,
      f'must be at least loss.c_bar = {self.c_bar}',
    )


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """The agent's optimiser: clip by global norm, scale, anneal."""

  name: Annotated[str, checks.one_of('rmsprop', 'adam', 'sgd')] = resume.fixed(
    'rmsprop'
  )
  learning_rate: checks.Positive = 1e-4
  # 'linear' anneals to 0 over the whole run.
  schedule: Annotated[str, checks.one_of('linear', 'constant')] = resume.fixed(
    'linear'
  )
  max_grad_norm: checks.Positive = 0.3
  # Decay of the second moment (RMSProp), and both decays of Adam.
  decay: checks.Fraction = 0.99
  beta1: checks.Fraction = 0.9
  beta2: checks.Fraction = 0.999
  # RMSProp: inside the square root, so that the meta-gradient stays finite.
  # Adam: outside, with a small second one inside for the same reason.
  epsilon: checks.Positive = 1e-4

  def __post_init__(self) -> None:
    checks.check_fields('optimizer', self)
