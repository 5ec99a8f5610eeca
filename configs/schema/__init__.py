"""The configuration of a run: one frozen, checked dataclass per concern.

Recipes (`configs/*.py`) and command-line overrides are `ml_collections`
ConfigDicts, which are easy to write and to change. `from_config_dict` turns one
into a `Config`: complete, typed, immutable and known to be consistent. Nothing
past the command line ever sees a ConfigDict.

The groups live in modules of their own and are all available here:
`environment`, `algorithm` (network, loss, optimiser), `meta`, `processes` and
`cluster`.

Budgets and periods on the x-axis are emulator frames; times are seconds.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from bmg.configs.schema import checks, resume
from bmg.configs.schema.algorithm import TORSOS, Agent, Loss, Optimizer
from bmg.configs.schema.cluster import Cluster, Kubernetes, Resources, Slurm
from bmg.configs.schema.environment import PROTOCOLS, Environment
from bmg.configs.schema.meta import (
  Context,
  Meta,
  MetaParameter,
  MetaParameters,
  TargetOptimizer,
)
from bmg.configs.schema.processes import (
  Actors,
  Evaluator,
  Launch,
  Learner,
  Replay,
)

__all__ = [
  'PROTOCOLS',
  'TORSOS',
  'Actors',
  'Agent',
  'Cluster',
  'Config',
  'Context',
  'Environment',
  'Evaluator',
  'Kubernetes',
  'Launch',
  'Learner',
  'Loss',
  'Meta',
  'MetaParameter',
  'MetaParameters',
  'Optimizer',
  'Replay',
  'Resources',
  'Slurm',
  'TargetOptimizer',
  'from_config_dict',
  'to_dict',
]


_MAX_UPDATES = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Config:
  """All of a run. The defaults are the paper's."""

  seed: int = resume.fixed(1)
  num_frames: int = resume.extent(200_000_000)
  env: Environment = resume.fixed(Environment())
  actors: Actors = Actors()
  evaluator: Evaluator = resume.extent(Evaluator())
  replay: Replay = Replay()
  agent: Agent = Agent()
  loss: Loss = Loss()
  optimizer: Optimizer = Optimizer()
  meta: Meta = Meta()
  learner: Learner = resume.machinery(Learner())
  launch: Launch = resume.machinery(Launch())
  cluster: Cluster = resume.machinery(Cluster())
  slurm: Slurm = resume.machinery(Slurm())
  kubernetes: Kubernetes = resume.machinery(Kubernetes())

  def __post_init__(self) -> None:
    checks.check(
      0 <= self.seed < 2**31, 'seed', self.seed, 'must lie in [0, 2^31)'
    )
    checks.check(
      not (self.cluster.relays and self.actors.inference == 'learner'),
      'cluster.relays',
      self.cluster.relays,
      'must be false where actors.inference=learner: nobody fetches parameters',
    )
    checks.check(
      self.learner.num_hosts == 1 or self.actors.inference == 'actor',
      'actors.inference',
      self.actors.inference,
      "must be 'actor' where learner.num_hosts is more than 1",
    )
    checks.check(
      self.num_frames >= self.frames_per_update,
      'num_frames',
      self.num_frames,
      f'must cover one update of {self.frames_per_update} frames',
    )
    checks.check(
      self.total_updates <= _MAX_UPDATES,
      'num_frames',
      self.num_frames,
      f'must not exceed {_MAX_UPDATES * self.frames_per_update}, as updates '
      'are counted in 32 bits',
    )
    online = self.meta.updates_per_step * self.replay.online_batch
    checks.check(
      self.replay.online_capacity >= online,
      'replay.online_capacity',
      self.replay.online_capacity,
      f'must hold the {online} online unrolls of one meta-update '
      '(replay.online_batch for each of its updates)',
    )
    self._check_divisible_among_hosts()

  def _check_divisible_among_hosts(self) -> None:
    """Each host of the learner reads an equal share of every batch."""
    sizes = {
      'replay.online_batch': self.replay.online_batch,
      'replay.replay_batch': self.replay.replay_batch,
    }
    if self.meta.num_bootstrap_batches:
      sizes['meta.bootstrap_batch'] = self.meta.bootstrap_batch
    for field, size in sizes.items():
      checks.check(
        size % self.learner.num_hosts == 0,
        field,
        size,
        f'must be divisible by learner.num_hosts = {self.learner.num_hosts}',
      )

  @property
  def frames_per_unroll(self) -> int:
    """Emulator frames in one unroll."""
    return self.actors.unroll_length * self.env.action_repeat

  @property
  def frames_per_update(self) -> int:
    """New emulator frames that one inner update consumes."""
    return self.replay.online_batch * self.frames_per_unroll

  @property
  def total_updates(self) -> int:
    """Inner updates in the whole run."""
    return -(-self.num_frames // self.frames_per_update)

  @property
  def meta_learning_rate(self) -> float:
    """Logits that the meta-optimiser moves at most, about, in one step."""
    if not self.meta.nominal_travel:
      return self.meta.learning_rate
    meta_updates = -(-self.total_updates // self.meta.updates_per_step)
    return self.meta.nominal_travel / meta_updates


def from_config_dict(
  config_dict: Mapping[str, Any] | ml_collections.ConfigDict,
) -> Config:
  """Builds and checks a `Config`.

  Args:
    config_dict: a (nested) mapping, as from a recipe's `get_config()` or a
      saved config.json. Missing fields take their default; environment fields
      that are missing or None take the value of `env.protocol`.

  Returns:
    The complete configuration.

  Raises:
    ConfigError: a field is unknown, has the wrong type, or does not fit.
  """
  if isinstance(config_dict, ml_collections.ConfigDict):
    config_dict = config_dict.to_dict()
  values = dict(config_dict)
  env = values.get('env')
  if isinstance(env, Mapping):
    protocol = env.get('protocol', Environment.protocol)
    defaults = PROTOCOLS.get(protocol, {})
    given = {name: value for name, value in env.items() if value is not None}
    values['env'] = {**defaults, **given}
  return checks.build(Config, values)


def to_dict(config: Config) -> dict[str, Any]:
  """The inverse of `from_config_dict`, in plain JSON types."""
  return dataclasses.asdict(config)
