"""Films of played games, in the colours and size of the screen.

A policy may see small grey frames, of every fourth screen. So a film is not
made of what it saw: its game is played again, action by action, on a second
emulator, whose return has to come out the same.
"""

import itertools
import os
from collections.abc import Iterator

import ale_py
import imageio.v2 as imageio
import numpy as np

from bmg.actors import environment
from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.evaluation import evaluator

# Emulator frames (60 per second) in one picture. Atari draws some objects on
# every other frame only, so that a picture takes the maximum of two.
_FRAMES_PER_PICTURE = 2
PICTURES_PER_SECOND = 60 / _FRAMES_PER_PICTURE

_SUFFIXES = ('.mp4', '.gif')


def replay(
  config: schema.Environment, game: evaluator.Game
) -> Iterator[np.ndarray]:
  """Plays a game again, and yields its pictures.

  Yields:
    uint8 [210, 160, 3], `PICTURES_PER_SECOND` of them to a second of play.

  Raises:
    RuntimeError: the return came out another than the game's.
  """
  emulator = environment.load_emulator(
    config.game, game.seed, config.sticky_action_probability
  )
  emulator.reset_game()
  for _ in range(game.no_ops):
    emulator.act(ale_py.Action.NOOP)
  action_set = environment.action_set(config.game, config.full_action_space)
  episode_return = 0.0
  screens = []
  for action in itertools.chain.from_iterable(
    itertools.repeat(action_set[index], config.action_repeat)
    for index in game.actions
  ):
    if emulator.game_over():
      break
    episode_return += emulator.act(action)
    screens.append(emulator.getScreenRGB())
    if len(screens) == _FRAMES_PER_PICTURE:
      yield np.maximum.reduce(screens)
      screens = []
  if episode_return != game.episode_return:
    raise RuntimeError(
      f'The replayed game returned {episode_return}, not '
      f'{game.episode_return}: the film shows another game.'
    )


def check_path(path: str) -> None:
  """Raises a `ConfigError` unless a film can be written to `path`."""
  suffix = os.path.splitext(path)[1].lower()
  if suffix not in _SUFFIXES:
    raise checks.ConfigError(
      'video', path, f'has the unknown suffix {suffix!r}', _SUFFIXES
    )


def write_video(path: str, pictures: Iterator[np.ndarray], fps: float) -> None:
  """Writes pictures, uint8 [H, W, 3], to an .mp4 or .gif file.

  Raises:
    ConfigError: the suffix is neither; see `check_path`.
  """
  check_path(path)
  if path.lower().endswith('.gif'):
    writer = imageio.get_writer(path, duration=1000 / fps, loop=0)
  else:
    # Sides of 210 and 160 are no multiples of 16, which only matters to very
    # old players.
    writer = imageio.get_writer(path, fps=fps, macro_block_size=2, quality=8)
  with writer:
    for picture in pictures:
      writer.append_data(picture)
