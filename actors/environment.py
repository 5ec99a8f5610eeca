"""A batch of Atari games, stepped together in C++.

Every option is set by hand from `schema.Environment`: ale-py's defaults are no
published protocol. docs/environment.md says what each does and why.
"""

import functools
from typing import NamedTuple

import ale_py
import ale_py.roms
import ale_py.vector_env
import numpy as np

from bmg.configs import schema


class StepResult(NamedTuple):
  """What E games show after one step, or after the first reset.

  A game that ends starts anew within the same step: `frames` then shows the
  next episode's first frame, while `rewards`, `discounts`, `episode_returns`
  and `episode_lengths` still tell of the action that ended the old one.
  """

  # uint8 [E, H, W, C], a fresh array at every step.
  frames: np.ndarray
  # bool [E]: the frame is the first of an episode.
  starts: np.ndarray
  # float32 [E]: raw game score of the action, summed over its repeats.
  rewards: np.ndarray
  # float32 [E]: 0 where the game ended or was cut off at its longest, and,
  # where so configured, where a life was lost; else 1.
  discounts: np.ndarray
  # float32 [E]: raw return of the full game that ended, and the emulator frames
  # that were acted on in it (its no-ops excluded); NaN where none did.
  episode_returns: np.ndarray
  episode_lengths: np.ndarray


class AtariEnvironment:
  """E games of one kind, each with its own seed; they reset by themselves."""

  def __init__(
    self,
    config: schema.Environment,
    num_envs: int,
    num_threads: int,
    seeds: np.ndarray,
  ):
    """Starts the emulators.

    Args:
      config: preprocessing and episode rules.
      num_envs: E.
      num_threads: emulator threads, beside the caller's own.
      seeds: int [E], each in [0, 2^31): equal seeds and actions give equal
        games, no-ops and sticky actions included.
    """
    self._config = config
    self._seeds = np.asarray(seeds, np.int32)
    if self._seeds.shape != (num_envs,):
      raise ValueError(f'seeds: {self._seeds.shape} is not {(num_envs,)}')
    self._games = ale_py.vector_env.AtariVectorEnv(
      config.game,
      num_envs=num_envs,
      num_threads=num_threads,
      img_height=config.height,
      img_width=config.width,
      grayscale=config.grayscale,
      maxpool=config.max_pool,
      frameskip=config.action_repeat,
      repeat_action_probability=config.sticky_action_probability,
      full_action_space=config.full_action_space,
      # Counts emulator frames, despite the C++ name `max_episode_steps`;
      # no-ops are not counted.
      max_num_frames_per_episode=config.max_episode_frames,
      # ale-py draws from [0, noop_max), we from [0, max_no_ops].
      noop_max=config.max_no_ops + 1,
      # Frames are stacked by the actor and the learner, and stored once.
      stack_num=1,
      # The loss clips, so that reported returns stay raw.
      reward_clipping=False,
      # Lives end no episode: `_step_result` sees to the discount.
      episodic_life=False,
      life_loss_info=False,
      # The policy has to find the button by itself.
      use_fire_reset=False,
      autoreset_mode='SameStep',
    )
    self.num_actions = num_actions(config)
    # int [E]: no-ops that began each game now running.
    self.no_ops = np.zeros(num_envs, np.int32)
    self._lives = np.zeros(num_envs, np.int32)
    self._frame_numbers = np.zeros(num_envs, np.int32)
    self._returns = np.zeros(num_envs, np.float32)
    self._lengths = np.zeros(num_envs, np.float32)

  def reset(self) -> StepResult:
    """Starts all games anew from their seeds."""
    observations, info = self._games.reset(seed=self._seeds)
    num_envs = len(self._seeds)
    self._frame_numbers = info['frame_number']
    self._lives = info['lives']
    self.no_ops = info['episode_frame_number'].copy()
    self._returns[:] = 0
    self._lengths[:] = 0
    nothing_ended = np.full(num_envs, np.nan, np.float32)
    return StepResult(
      frames=self._to_frames(observations),
      starts=np.ones(num_envs, np.bool_),
      rewards=np.zeros(num_envs, np.float32),
      discounts=np.ones(num_envs, np.float32),
      episode_returns=nothing_ended,
      episode_lengths=nothing_ended,
    )

  def step(self, actions: np.ndarray) -> StepResult:
    """Takes one action, int32 [E], in each game."""
    self.send(actions)
    return self.receive()

  def send(self, actions: np.ndarray) -> None:
    """Begins a step with one action, int32 [E], for each game."""
    self._games.send(actions)

  def receive(self) -> StepResult:
    """Waits for the step that has begun; returns what it shows."""
    observations, rewards, terminated, truncated, info = self._games.recv()
    rewards = rewards.astype(np.float32)
    ended = terminated | truncated
    # The emulator's frame counter runs on through a reset, so that the no-ops
    # of the next game have to come off. It tells when a game ended within an
    # action repeat.
    acted = info['frame_number'] - self._frame_numbers
    acted -= np.where(ended, info['episode_frame_number'], 0)
    self._returns += rewards
    self._lengths += acted
    cut = ended
    if self._config.zero_discount_on_life_loss:
      # `lives` already belongs to the next game where one ended.
      cut = ended | (info['lives'] < self._lives)
    result = StepResult(
      frames=self._to_frames(observations),
      starts=ended,
      rewards=rewards,
      discounts=np.where(cut, np.float32(0), np.float32(1)),
      episode_returns=np.where(ended, self._returns, np.float32(np.nan)),
      episode_lengths=np.where(ended, self._lengths, np.float32(np.nan)),
    )
    self._frame_numbers = info['frame_number']
    self._lives = info['lives']
    self.no_ops[ended] = info['episode_frame_number'][ended]
    self._returns[ended] = 0
    self._lengths[ended] = 0
    return result

  def close(self) -> None:
    """Stops the emulator threads."""
    self._games.close()
    # The threads belong to the C++ object, which has no `close` of its own.
    del self._games.ale

  def _to_frames(self, observations: np.ndarray) -> np.ndarray:
    """[E, 1, H, W(, 3)] -> [E, H, W, C], without a copy."""
    return observations.reshape(len(observations), *self._config.frame_shape)


def num_actions(config: schema.Environment) -> int:
  """Returns the size of the game's action set, A."""
  return len(action_set(config.game, config.full_action_space))


@functools.lru_cache
def action_set(game: str, full: bool) -> tuple[ale_py.Action, ...]:
  """Returns the emulator's actions by index: the minimal set or all 18."""
  emulator = load_emulator(game, seed=0, sticky_action_probability=0.0)
  return tuple(
    emulator.getLegalActionSet() if full else emulator.getMinimalActionSet()
  )


def load_emulator(
  game: str, seed: int, sticky_action_probability: float
) -> ale_py.ALEInterface:
  """Returns a plain, single emulator, just switched on."""
  path = ale_py.roms.get_rom_path(game)
  if path is None:
    raise ValueError(f'No ROM for the game {game!r}.')
  ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
  emulator = ale_py.ALEInterface()
  emulator.setInt('random_seed', seed)
  emulator.setFloat('repeat_action_probability', sticky_action_probability)
  emulator.loadROM(path)
  return emulator
