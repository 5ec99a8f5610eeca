"""The configuration of a run: one frozen, checked dataclass per concern.

Recipes (`configs/*.py`) and command-line overrides are `ml_collections`
ConfigDicts, which are easy to write and to change. `from_config_dict` turns one
into a `Config`: complete, typed, immutable and known to be consistent. Nothing
past the command line ever sees a ConfigDict.

Budgets and periods on the x-axis are emulator frames; times are seconds.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import ale_py.roms
import ml_collections

from configs import checks


@dataclasses.dataclass(frozen=True)
class Environment:
  """Atari preprocessing. `protocol` names the defaults of every other field.

  See `PROTOCOLS` for the named protocols and docs/environment.md for what each
  option does and where its value comes from.
  """

  game: str = 'pong'
  protocol: str = 'paper'
  height: int = 210
  width: int = 160
  grayscale: bool = False
  # Pixel-wise maximum over the last two emulator frames of an action repeat.
  max_pool: bool = False
  frame_stack: int = 4
  action_repeat: int = 4
  sticky_action_probability: float = 0.0
  # A random number of no-op actions in [0, max_no_ops] starts each episode.
  max_no_ops: int = 30
  max_episode_frames: int = 108_000
  full_action_space: bool = False
  # Sets the discount to 0 when a life is lost; the episode itself goes on.
  zero_discount_on_life_loss: bool = True
  # Rewards are clipped to [-reward_clip, reward_clip] in the loss only; 0 turns
  # clipping off. Reported returns are always raw.
  reward_clip: float = 1.0

  def __post_init__(self):
    checks.check_choice('env.protocol', self.protocol, tuple(PROTOCOLS))
    games = sorted(ale_py.roms.get_all_rom_ids())
    if self.game not in games:
      raise checks.ConfigError(
        'env.game',
        self.game,
        f'is not one of the {len(games)} games',
        games,
      )
    checks.GroupChecker('env', self).at_least(
      1, 'height', 'width', 'frame_stack', 'action_repeat'
    )
    checks.GroupChecker('env', self).in_unit_interval(
      'sticky_action_probability'
    )
    checks.GroupChecker('env', self).at_least(0, 'max_no_ops')
    checks.check(
      self.max_episode_frames >= self.action_repeat,
      'env.max_episode_frames',
      self.max_episode_frames,
      'must be at least one action repeat',
    )
    checks.check(
      self.reward_clip >= 0.0,
      'env.reward_clip',
      self.reward_clip,
      'must not be negative (0 turns clipping off)',
    )

  @property
  def frame_shape(self) -> tuple[int, int, int]:
    """Shape [H, W, C] of one frame, before stacking."""
    return (self.height, self.width, 1 if self.grayscale else 3)


# What each named protocol sets. Flennerhag et al. (2022), Atari appendix, use
# the full-resolution colour screen; `common84` is the usual DQN/IMPALA input;
# `small42` is `common84` at a quarter of the pixels, for laptops.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
  'paper': {
    'height': 210,
    'width': 160,
    'grayscale': False,
    'max_pool': False,
  },
  'common84': {
    'height': 84,
    'width': 84,
    'grayscale': True,
    'max_pool': True,
  },
  'small42': {
    'height': 42,
    'width': 42,
    'grayscale': True,
    'max_pool': True,
  },
}


@dataclasses.dataclass(frozen=True)
class Actors:
  """Acting: how many processes, and how each of them works."""

  num_actors: int = 48
  envs_per_actor: int = 1
  # Steps (not frames) in one unroll, T.
  unroll_length: int = 20
  # Emulator threads per actor process.
  env_threads: int = 1
  # How long one attempt to insert an unroll or fetch parameters may take
  # before it is reported and tried again.
  insert_timeout_s: float = 5.0
  parameter_timeout_s: float = 10.0

  def __post_init__(self):
    checks.GroupChecker('actors', self).at_least(
      1, 'num_actors', 'envs_per_actor', 'unroll_length', 'env_threads'
    )
    checks.GroupChecker('actors', self).positive(
      'insert_timeout_s', 'parameter_timeout_s'
    )


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Periodic evaluation on full games while training goes on."""

  # Full games per evaluation, played `num_envs` at a time.
  num_episodes: int = 8
  num_envs: int = 4
  # A new evaluation starts once training has moved on by this many frames.
  period_frames: int = 1_000_000
  # Take the most likely action instead of sampling (the paper samples).
  greedy: bool = False

  def __post_init__(self):
    checks.GroupChecker('evaluator', self).at_least(
      1, 'num_episodes', 'num_envs', 'period_frames'
    )
    checks.check(
      self.num_envs <= self.num_episodes,
      'evaluator.num_envs',
      self.num_envs,
      f'must not exceed evaluator.num_episodes = {self.num_episodes}',
    )


@dataclasses.dataclass(frozen=True)
class Replay:
  """The two Reverb tables and how a learner batch is drawn from them."""

  # Unrolls per batch from the queue and from uniform replay.
  online_batch: int = 6
  replay_batch: int = 12
  # Bound of the queue: a full one makes the actors wait.
  online_capacity: int = 24
  replay_capacity: int = 10_000
  # Unrolls that replay must hold before learning starts.
  min_replay_size: int = 100
  # How long to wait for a batch before saying what is missing.
  read_timeout_s: float = 60.0
  # Save the content of both tables with a stop, and restore it on resume.
  checkpoint: bool = False

  def __post_init__(self):
    checks.check(
      self.online_batch >= 1,
      'replay.online_batch',
      self.online_batch,
      'must be at least 1: learning from replay alone fails',
    )
    checks.GroupChecker('replay', self).at_least(0, 'replay_batch')
    checks.check(
      self.online_capacity >= self.online_batch,
      'replay.online_capacity',
      self.online_capacity,
      f'must hold at least one replay.online_batch = {self.online_batch}',
    )
    checks.check(
      1 <= self.min_replay_size <= self.replay_capacity,
      'replay.min_replay_size',
      self.min_replay_size,
      f'must lie between 1 and replay.replay_capacity = {self.replay_capacity}',
    )
    checks.GroupChecker('replay', self).positive('read_timeout_s')

  @property
  def batch_size(self) -> int:
    """Unrolls per inner update, B."""
    return self.online_batch + self.replay_batch


TORSOS = ('impala_paper', 'impala_2018', 'nature', 'small')


@dataclasses.dataclass(frozen=True)
class Agent:
  """The network: a shared torso, then one MLP each for policy and value."""

  torso: str = 'impala_paper'
  # Hidden layers of each head; () makes the heads linear.
  head_hidden: tuple[int, ...] = (256, 256)

  def __post_init__(self):
    checks.check_choice('agent.torso', self.torso, TORSOS)
    checks.check(
      all(size >= 1 for size in self.head_hidden),
      'agent.head_hidden',
      self.head_hidden,
      'every layer needs at least 1 unit',
    )


@dataclasses.dataclass(frozen=True)
class Loss:
  """The actor-critic loss, apart from its (meta-learned) hyper-parameters."""

  # 'vtrace' corrects for off-policy data; 'lambda' ignores the behaviour
  # policy and gives A2C's lambda-returns (n-step returns at lambda = 1).
  returns: str = 'vtrace'
  rho_bar: float = 1.0
  c_bar: float = 1.0
  # Sum or mean over batch and time. Not stated in the paper; IMPALA sums.
  reduction: str = 'mean'
  # 'q': r + discount * v_{t+1} - V (IMPALA); 'target': v_t - V (BMG).
  advantage: str = 'q'
  # LASER applies the entropy bonus to online data alone.
  entropy_on_replay: bool = True

  def __post_init__(self):
    checks.check_choice('loss.returns', self.returns, ('vtrace', 'lambda'))
    checks.check_choice('loss.reduction', self.reduction, ('mean', 'sum'))
    checks.check_choice('loss.advantage', self.advantage, ('q', 'target'))
    checks.GroupChecker('loss', self).positive('rho_bar', 'c_bar')
    checks.check(
      self.rho_bar >= self.c_bar,
      'loss.rho_bar',
      self.rho_bar,
      f'must be at least loss.c_bar = {self.c_bar}',
    )


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """The agent's optimiser: clip by global norm, scale, anneal."""

  name: str = 'rmsprop'
  learning_rate: float = 1e-4
  # 'linear' anneals to 0 over the whole run.
  schedule: str = 'linear'
  max_grad_norm: float = 0.3
  # Decay of the second moment (RMSProp), and both decays of Adam.
  decay: float = 0.99
  beta1: float = 0.9
  beta2: float = 0.999
  # RMSProp: inside the square root, so that the meta-gradient stays finite.
  # Adam: outside, with a small second one inside for the same reason.
  epsilon: float = 1e-4

  def __post_init__(self):
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

  def __post_init__(self):
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

  def __post_init__(self):
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


@dataclasses.dataclass(frozen=True)
class Learner:
  """The learner process: logging, checkpoints, devices."""

  log_period_s: float = 5.0
  checkpoint_period_s: float = 300.0
  # The newest `keep_checkpoints` are kept, and the best `keep_best` by mean
  # episode return.
  keep_checkpoints: int = 3
  keep_best: int = 1
  # Batches read ahead while the device works.
  prefetch: int = 2
  # Local devices to spread a batch over; 0 takes all of them.
  num_devices: int = 0

  def __post_init__(self):
    checks.GroupChecker('learner', self).positive(
      'log_period_s', 'checkpoint_period_s'
    )
    checks.GroupChecker('learner', self).at_least(
      1, 'keep_checkpoints', 'prefetch'
    )
    checks.GroupChecker('learner', self).at_least(0, 'keep_best', 'num_devices')


@dataclasses.dataclass(frozen=True)
class Launch:
  """How processes are watched, restarted and stopped."""

  # A node that fails more often than this within the window stops the run.
  # (Actors and the evaluator are restarted for ever unless they never start.)
  max_restarts: int = 5
  restart_window_s: float = 600.0
  # Time to save and leave after SIGTERM, before SIGKILL.
  grace_s: float = 60.0
  # A node that shows no sign of life for so long is killed and restarted.
  heartbeat_timeout_s: float = 300.0

  def __post_init__(self):
    checks.GroupChecker('launch', self).at_least(0, 'max_restarts')
    checks.GroupChecker('launch', self).positive(
      'restart_window_s', 'grace_s', 'heartbeat_timeout_s'
    )


@dataclasses.dataclass(frozen=True)
class Config:
  """All of a run. The defaults are the paper's."""

  seed: int = 1
  num_frames: int = 200_000_000
  env: Environment = Environment()
  actors: Actors = Actors()
  evaluator: Evaluator = Evaluator()
  replay: Replay = Replay()
  agent: Agent = Agent()
  loss: Loss = Loss()
  optimizer: Optimizer = Optimizer()
  meta: Meta = Meta()
  learner: Learner = Learner()
  launch: Launch = Launch()

  def __post_init__(self):
    checks.check(
      0 <= self.seed < 2**31, 'seed', self.seed, 'must lie in [0, 2^31)'
    )
    checks.check(
      self.num_frames >= self.frames_per_update,
      'num_frames',
      self.num_frames,
      f'must cover one update of {self.frames_per_update} frames',
    )
    online = self.meta.inner_updates * self.replay.online_batch
    checks.check(
      self.replay.online_capacity >= online,
      'replay.online_capacity',
      self.replay.online_capacity,
      f'must hold the {online} online unrolls of one meta-update '
      '(meta.inner_updates * replay.online_batch)',
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


def from_config_dict(
  config_dict: Mapping[str, Any] | ml_collections.ConfigDict,
) -> Config:
  """Builds and checks a `Config`.

  Args:
    config_dict: a (nested) mapping, as from a recipe's `get_config()` or a saved
      config.json. Missing fields take their default; environment fields that
      are missing or None take the value of `env.protocol`.

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
