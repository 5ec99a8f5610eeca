"""The configuration of a two-colors study: its world, and agents to compare.

Flennerhag et al. (2022), section 5.1 and appendix B; what they leave open is
after Luketina et al. (2022). The defaults are the actor-critic's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import ml_collections

from bmg.configs.schema import checks
from bmg.configs.schema.meta import Context


@dataclasses.dataclass(frozen=True)
class Environment:
  """The grid world."""

  # Steps from one change of the good item to the next.
  switch_interval: checks.Count = 100_000
  # 'item': only a collected item moves (Flennerhag et al.); 'all': the agent
  # and both items do (Luketina et al.).
  respawn: Annotated[str, checks.one_of('item', 'all')] = 'item'

  def __post_init__(self) -> None:
    checks.check_fields('env', self)


@dataclasses.dataclass(frozen=True)
class Meta:
  """What is meta-learned: the entropy weight, or epsilon of Q(lambda)."""

  mode: Annotated[str, checks.one_of('none', 'mg', 'bmg')] = 'none'
  # The hyper-parameter where it is not meta-learned: throughout (mode=none), in
  # the outer loss (mg), in the last step of the target (bmg, actor-critic).
  fixed: checks.Fraction = 0.0
  # What meta-learning begins with.
  initial: float = 0.5
  # K and L. All updates are the agent's own, but for the target's last one.
  # Q(lambda) has K = 0.
  inner_updates: checks.Natural = 1
  bootstrap_length: checks.Count = 1
  learning_rate: checks.Positive = 1e-4
  beta1: checks.Fraction = 0.9
  beta2: checks.Fraction = 0.999
  epsilon: checks.Positive = 1e-4
  context: Context = Context()

  def __post_init__(self) -> None:
    checks.check_fields('meta', self)
    checks.check(
      0 < self.initial < 1, 'meta.initial', self.initial, 'must lie in (0, 1)'
    )


@dataclasses.dataclass(frozen=True)
class Agent:
  """One way to learn, whose seeds run side by side."""

  # 'actor_critic' or 'q_lambda'.
  kind: str = 'actor_critic'
  hidden: tuple[int, ...] = (256, 256)
  # Variance of initial weights, times the number of inputs of their layer.
  initial_scale: checks.Positive = 1.0
  discount: checks.Fraction = 0.99
  # Of SGD for the actor-critic, of Adam for Q(lambda).
  learning_rate: checks.Positive = 0.1
  # Actor-critic: steps between two updates, weight of the value loss, and the
  # global norm that gradients are clipped to (0: they are not).
  rollout_length: checks.Count = 16
  # Of the lambda-returns G that the value learns: 1 makes n-step returns of the
  # rest of the rollout, 0 one-step ones. The policy's advantage at t is, as in
  # IMPALA, r_t + discount * G_t+1 - v_t.
  return_lambda: float = 1.0
  value_weight: checks.Positive = 1.0
  max_grad_norm: checks.NonNegative = 0.0
  # Q(lambda): the decay of traces, and Adam's settings.
  trace_lambda: checks.Fraction = 0.7
  beta1: checks.Fraction = 0.9
  beta2: checks.Fraction = 0.999
  epsilon: checks.Positive = 1e-4
  meta: Meta = Meta()

  def __post_init__(self) -> None:
    checks.check_choice('kind', self.kind, ('actor_critic', 'q_lambda'))
    checks.check_fields('agent', self)
    if self.kind == 'q_lambda':
      checks.check(
        self.meta.mode != 'mg',
        'meta.mode',
        self.meta.mode,
        'does not suit q_lambda: its updates are not differentiable in epsilon',
      )
    elif self.meta.mode != 'none':
      checks.check(
        self.meta.inner_updates >= 1,
        'meta.inner_updates',
        self.meta.inner_updates,
        'must be at least 1: the actor-critic learns through its updates',
      )


@dataclasses.dataclass(frozen=True)
class Study:
  """Agents to compare, in one world."""

  num_steps: int = 10_000_000
  num_seeds: checks.Count = 10
  seed: int = 1
  # Steps that one row of the records is the mean of, and from one checkpoint to
  # the next. Both are rounded to whole updates.
  log_period_steps: checks.Count = 2_500
  checkpoint_period_steps: int = 50_000
  env: Environment = Environment()
  agents: Mapping[str, Agent] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    checks.check(
      0 <= self.seed < 2**31, 'seed', self.seed, 'must lie in [0, 2^31)'
    )
    checks.check_fields('', self)
    checks.check(
      self.checkpoint_period_steps >= self.log_period_steps,
      'checkpoint_period_steps',
      self.checkpoint_period_steps,
      f'must be at least log_period_steps = {self.log_period_steps}',
    )
    checks.check(
      self.num_steps >= self.log_period_steps,
      'num_steps',
      self.num_steps,
      f'must be at least log_period_steps = {self.log_period_steps}',
    )


def from_config_dict(
  config_dict: Mapping[str, Any] | ml_collections.ConfigDict,
) -> Study:
  """Builds and checks a `Study`.

  Raises:
    ConfigError: a field is unknown, has the wrong type, or does not fit.
  """
  if isinstance(config_dict, ml_collections.ConfigDict):
    config_dict = config_dict.to_dict()
  values = dict(config_dict)
  # Their names are the user's, so these are not for `checks.build`.
  agents = {
    name: checks.build(Agent, agent, prefix=f'agents.{name}.')
    for name, agent in values.pop('agents', {}).items()
  }
  checks.check(bool(agents), 'agents', agents, 'must not be empty')
  return dataclasses.replace(checks.build(Study, values), agents=agents)


def to_dict(study: Study) -> dict[str, Any]:
  """The inverse of `from_config_dict`, in plain JSON types."""
  return dataclasses.asdict(study)
