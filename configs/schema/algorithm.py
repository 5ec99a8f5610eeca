"""The inner learning algorithm: network, loss and optimiser."""

import dataclasses

from bmg.configs.schema import checks, resume

TORSOS = ('impala_paper', 'impala_2018', 'nature', 'small')


@dataclasses.dataclass(frozen=True)
class Agent:
  """The network: a shared torso, and MLPs for policies and values."""

  torso: str = resume.fixed('impala_paper')
  # 'bfloat16' computes the torso in half the precision, from float32
  # parameters: faster on accelerators, a departure from the paper.
  torso_dtype: str = 'float32'
  # Hidden layers of each head; () makes the heads linear.
  head_hidden: tuple[int, ...] = resume.fixed((256, 256))
  # STACX's auxiliary tasks: pairs of a policy and a value that only learn, each
  # with hyper-parameters of its own.
  auxiliary_heads: int = resume.fixed(2)
  # A second value of the main policy, learned with the fixed hyper-parameters,
  # for the plain objective (Bonnet et al., 2022). Not in the paper.
  outer_critic: bool = resume.fixed(False)

  def __post_init__(self) -> None:
    checks.check_choice('agent.torso', self.torso, TORSOS)
    checks.check_choice(
      'agent.torso_dtype', self.torso_dtype, ('float32', 'bfloat16')
    )
    checks.GroupChecker('agent', self).at_least(0, 'auxiliary_heads')
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
  returns: str = 'vtrace'
  rho_bar: float = 1.0
  c_bar: float = 1.0
  # LASER's threshold b: states whose policy is so far (in nats) from what
  # importance sampling can make of the behaviour policy are not learned from.
  # 0 learns from all.
  trust_region: float = 2.0
  # Sum or mean over batch and time. Not stated in the paper; IMPALA sums, and
  # only sums are long enough for the paper's clipping to act.
  reduction: str = 'sum'
  # Whether the value loss is half the squared error, as IMPALA's, or all of it.
  # STACX's weight of 0.25 is IMPALA's 0.5 x 1/2, so that its loss most likely
  # has no 1/2.
  half_value_loss: bool = False
  # 'q': r + discount * v_{t+1} - V (IMPALA); 'target': v_t - V (BMG).
  advantage: str = 'q'
  # LASER applies the entropy bonus to online data alone.
  entropy_on_replay: bool = True

  def __post_init__(self) -> None:
    checks.check_choice('loss.returns', self.returns, ('vtrace', 'lambda'))
    checks.check_choice('loss.reduction', self.reduction, ('mean', 'sum'))
    checks.check_choice('loss.advantage', self.advantage, ('q', 'target'))
    checks.GroupChecker('loss', self).positive('rho_bar', 'c_bar')
    checks.GroupChecker('loss', self).at_least(0, 'trust_region')
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

  name: str = resume.fixed('rmsprop')
  learning_rate: float = 1e-4
  # 'linear' anneals to 0 over the whole run.
  schedule: str = resume.fixed('linear')
  max_grad_norm: float = 0.3
  # Decay of the second moment (RMSProp), and both decays of Adam.
  decay: float = 0.99
  beta1: float = 0.9
  beta2: float = 0.999
  # RMSProp: inside the square root, so that the meta-gradient stays finite.
  # Adam: outside, with a small second one inside for the same reason.
  epsilon: float = 1e-4

  def __post_init__(self) -> None:
    checks.check_choice('optimizer.name', self.name, ('rmsprop', 'adam', 'sgd'))
    checks.check_choice(
      'optimizer.schedule', self.schedule, ('linear', 'constant')
    )
    checks.GroupChecker('optimizer', self).positive(
      'learning_rate', 'max_grad_norm', 'epsilon'
    )
    checks.GroupChecker('optimizer', self).in_unit_interval(
      'decay', 'beta1', 'beta2'
    )
