"""The processes of a run: acting, evaluating, replay, learning, watching."""

import dataclasses
from typing import Annotated

from bmg.configs.schema import checks, resume


@dataclasses.dataclass(frozen=True)
class Actors:
  """Acting: how many processes, and how each of them works."""

  num_actors: checks.Count = resume.machinery(48)
  envs_per_actor: checks.Count = 1
  # Groups that the games of an actor are divided into: while the actions of one
  # are chosen, the others are stepped.
  env_groups: checks.Count = resume.machinery(1)
  # Steps (not frames) in one unroll, T.
  unroll_length: checks.Count = resume.fixed(20)
  # Emulator threads per actor process, for each group.
  env_threads: checks.Count = resume.machinery(1)
  # Where actions are chosen: 'actor', by parameters that each actor fetches, or
  # 'learner', on its devices, for all actors at once. The learner then waits
  # for the actors' observations, but no longer than this.
  inference: Annotated[str, checks.one_of('actor', 'learner')] = (
    resume.machinery('actor')
  )
  inference_wait_ms: checks.Positive = resume.machinery(10.0)
  # How long one attempt to insert an unroll or fetch parameters may take
  # before it is reported and tried again.
  insert_timeout_s: checks.Positive = resume.machinery(5.0)
  parameter_timeout_s: checks.Positive = resume.machinery(10.0)

  def __post_init__(self) -> None:
    checks.check_fields('actors', self)
    checks.check(
      self.envs_per_actor % self.env_groups == 0,
      'actors.env_groups',
      self.env_groups,
      f'must divide actors.envs_per_actor = {self.envs_per_actor}',
    )

  @property
  def games_per_group(self) -> int:
    """Games whose actions are chosen at once."""
    return self.envs_per_actor // self.env_groups


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Periodic evaluation on full games while training goes on."""

  # Full games per evaluation, played `num_envs` at a time.
  num_episodes: checks.Count = 8
  num_envs: checks.Count = 4
  # A new evaluation starts once training has moved on by this many frames.
  period_frames: checks.Count = 1_000_000
  # Take the most likely action instead of sampling (the paper samples).
  greedy: bool = False

  def __post_init__(self) -> None:
    checks.check_fields('evaluator', self)
    checks.check(
      self.num_envs <= self.num_episodes,
      'evaluator.num_envs',
      self.num_envs,
      f'must not exceed evaluator.num_episodes = {self.num_episodes}',
    )


@dataclasses.dataclass(frozen=True)
class Replay:
  """The two Reverb tables and how a learner batch is drawn from them."""

  # Reverb servers that share the work and the memory: actor i writes to server
  # i modulo their number, the learner reads from all. Sizes below are of all.
  num_servers: checks.Count = resume.machinery(1)
  # Unrolls per batch from the queue and from uniform replay.
  online_batch: int = 6
  replay_batch: checks.Natural = 12
  # Bound of the queue: a full one makes the actors wait.
  online_capacity: int = 24
  replay_capacity: int = 10_000
  # Unrolls that replay must hold before learning starts.
  min_replay_size: int = 100
  # How long to wait for a batch before saying what is missing.
  read_timeout_s: checks.Positive = resume.machinery(60.0)
  # Save the content of both tables with a stop, and restore it on resume.
  checkpoint: bool = resume.machinery(False)

  def __post_init__(self) -> None:
    checks.check(
      self.online_batch >= 1,
      'replay.online_batch',
      self.online_batch,
      'must be at least 1: learning from replay alone fails',
    )
    checks.check_fields('replay', self)
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

  @property
  def batch_size(self) -> int:
    """Unrolls per inner update, B."""
    return self.online_batch + self.replay_batch

  def per_server(self, size: int) -> int:
    """Each server's part of a size or capacity, rounded up."""
    return -(-size // self.num_servers)


@dataclasses.dataclass(frozen=True)
class Learner:
  """The learner: logging, checkpoints, devices, hosts."""

  log_period_s: checks.Positive = 5.0
  checkpoint_period_s: checks.Positive = 300.0
  # The newest `keep_checkpoints` are kept, and the best `keep_best` by mean
  # episode return.
  keep_checkpoints: checks.Count = 3
  keep_best: checks.Natural = 1
  # Compiling the training step may take so long before it counts as stuck.
  compile_timeout_s: checks.Positive = 1800.0
  # Batches read ahead while the device works.
  prefetch: checks.Count = 2
  # Devices of each host to spread a batch over; 0 takes all of them.
  num_devices: checks.Natural = 0
  # Learner processes, each with devices of its own, that make each training
  # step together. Batch sizes are those of all hosts together.
  num_hosts: checks.Count = 1
  # A host of which the others hear nothing for so long is given up, and the
  # learner starts again from its last checkpoint.
  host_timeout_s: checks.Positive = 30.0

  def __post_init__(self) -> None:
    checks.check_fields('learner', self)


@dataclasses.dataclass(frozen=True)
class Launch:
  """How processes are watched, restarted and stopped."""

  # A node that fails more often than this within the window stops the run.
  # (Actors and the evaluator are restarted for ever unless they never start.)
  max_restarts: checks.Natural = 5
  restart_window_s: checks.Positive = 600.0
  # Time to save and leave after SIGTERM, before SIGKILL.
  grace_s: checks.Positive = 60.0
  # A node that shows no sign of life for so long is killed and restarted.
  heartbeat_timeout_s: checks.Positive = 300.0

  def __post_init__(self) -> None:
    checks.check_fields('launch', self)
