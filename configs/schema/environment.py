"""The Atari environment: named protocols and every option of theirs."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import ale_py.roms

from bmg.configs.schema import checks

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
class Environment:
  """Atari preprocessing. `protocol` names the defaults of every other field.

  See `PROTOCOLS` for the named protocols and docs/environment.md for what each
  option does and where its value comes from.
  """

  game: str = 'pong'
  protocol: Annotated[str, checks.one_of(*PROTOCOLS)] = 'paper'
  height: checks.Count = 210
  width: checks.Count = 160
  grayscale: bool = False
  # Pixel-wise maximum over the last two emulator frames of an action repeat.
  max_pool: bool = False
  frame_stack: checks.Count = 4
  action_repeat: checks.Count = 4
  sticky_action_probability: checks.Fraction = 0.0
  # A random number of no-op actions in [0, max_no_ops] starts each episode.
  max_no_ops: checks.Natural = 30
  max_episode_frames: int = 108_000
  full_action_space: bool = False
  # Sets the discount to 0 when a life is lost; the episode itself goes on.
  zero_discount_on_life_loss: bool = True
  # Rewards are clipped to [-reward_clip, reward_clip] in the loss only; 0 turns
  # clipping off. Reported returns are always raw.
  reward_clip: float = 1.0

  def __post_init__(self) -> None:
    checks.check_fields('env', self)
    games = sorted(ale_py.roms.get_all_rom_ids())
    if self.game not in games:
      raise checks.ConfigError(
        'env.game',
        self.game,
        f'is not one of the {len(games)} games',
        games,
      )
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
