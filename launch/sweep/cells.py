"""The cells of a sweep: variants x games x seeds, and what becomes of each."""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.evaluation import atari_scores
from bmg.launch import cli
from bmg.launch.kubernetes import dns
from bmg.launch.run import files

PENDING = 'pending'
RUNNING = 'running'
RETRYING = 'retrying'
STOPPING = 'stopping'
STOPPED = 'stopped'
DONE = 'done'
FAILED = 'failed'
# States of a cell that was started and has not ended.
ACTIVE = (RUNNING, STOPPING)

_GROUPS = ('atari57', 'atari5')
_GAMES_HELP = f'{", ".join(_GROUPS)}, or games such as pong,breakout'
_SEEDS_HELP = '3 for seeds 1 to 3, 4,7 for these two, 4, for this one'
# More is most likely one seed without the comma.
_MAX_SEEDS = 100
# A recipe as it is has one variant, without a name.
NO_VARIANTS = ('',)


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run of a sweep."""

  game: str
  seed: int
  # The run's folder.
  workdir: str
  # Starts it, or goes on with it.
  command: tuple[str, ...] = ()
  # Of the recipe; '' is the recipe as it is.
  variant: str = ''

  @property
  def name(self) -> str:
    """Tells it from other cells of its variant."""
    return f'{self.game}-{self.seed}'

  def __str__(self) -> str:
    return f'{self.variant}/{self.name}' if self.variant else self.name


@dataclasses.dataclass
class Status:
  """How far the sweep has come with one cell."""

  cell: Cell
  state: str = PENDING
  # Of the last failure, or what the cell waits for.
  reason: str = ''
  # Starts after a failure, since the sweep itself was started.
  retries: int = 0


def parse_games(text: str | None) -> tuple[str, ...]:
  """Returns the games that --games names.

  Raises:
    UsageError: there are none, or one is not known or named twice.
  """
  if not text:
    raise cli.UsageError(f'--games is missing: {_GAMES_HELP}')
  if text == 'atari57':
    return tuple(sorted(atari_scores.references()))
  if text == 'atari5':
    return tuple(atari_scores.ATARI5)
  games = _split(text)
  for game in games:
    _check_game(game, text)
  _check_once('games', text, games)
  return games


def _check_game(game: str, text: str) -> None:
  try:
    schema.Environment(game=game)
  except checks.ConfigError as error:
    problem = str(error).partition(': ')[2]
    group = difflib.get_close_matches(game, _GROUPS, n=1, cutoff=0.8)
    if group:
      problem = f'is not a group of games. Did you mean {group[0]!r}?'
    raise cli.UsageError(
      f'--games={text}: {game!r} {problem} Allowed: {_GAMES_HELP}'
    ) from error


def parse_seeds(text: str) -> tuple[int, ...]:
  """Returns the seeds that --seeds names.

  Raises:
    UsageError: there are none, or one is not a seed or named twice.
  """
  try:
    numbers = tuple(int(part) for part in _split(text))
  except ValueError:
    numbers = ()
  if not numbers or not all(0 <= number < 2**31 for number in numbers):
    raise cli.UsageError(
      f'--seeds={text}: must be whole numbers in [0, 2^31): {_SEEDS_HELP}'
    )
  if ',' in text:
    _check_once('seeds', text, numbers)
    return numbers
  if not 1 <= numbers[0] <= _MAX_SEEDS:
    raise cli.UsageError(
      f'--seeds={text}: the number of seeds must lie between 1 and '
      f'{_MAX_SEEDS}; the one seed {text} is written --seeds={text},'
    )
  return tuple(range(1, numbers[0] + 1))


def parse_variants(text: str, recipe: str) -> tuple[str, ...]:
  """Returns the variants of the recipe that --variants names.

  Raises:
    UsageError: there are none, or one is not known or named twice.
  """
  known = cli.variants(recipe)
  names = known if text == cli.ALL_VARIANTS else _split(text)
  for name in names or ('',):
    cli.check_variant(f'--variants={text}', name, recipe, known)
  _check_once('variants', text, names)
  return names


def _split(text: str) -> tuple[str, ...]:
  """'a, b,' -> ('a', 'b')."""
  return tuple(part.strip() for part in text.split(',') if part.strip())


def _check_once(flag: str, text: str, values: Sequence[Any]) -> None:
  for value in values:
    if values.count(value) > 1:
      raise cli.UsageError(f'--{flag}={text}: names {value} twice')


def make_cells(
  workdir: str,
  games: Sequence[str],
  seeds: Sequence[int],
  launcher: str = 'local',
  variants: Sequence[str] = NO_VARIANTS,
  command: Callable[[str], Sequence[str]] = lambda variant: (),
) -> tuple[Cell, ...]:
  """Returns the cells in the order of starting.

  Seed by seed, every game is played by all variants, so that what a sweep has
  done so far can be compared.

  Args:
    workdir: the sweep's folder.
    games: to play.
    seeds: of each game.
    launcher: of the cells; Kubernetes does not bear every name of a folder.
    variants: of the recipe.
    command: to train a variant, to which game, seed and folder are added.
  """
  return tuple(
    Cell(
      game,
      seed,
      folder := os.path.join(workdir, _folder(variant, game, seed, launcher)),
      (
        *command(variant),
        f'--config.env.game={game}',
        f'--config.seed={seed}',
        f'--workdir={folder}',
      ),
      variant,
    )
    for seed in seeds
    for game in games
    for variant in variants
  )


def _folder(variant: str, game: str, seed: int, launcher: str) -> str:
  """Returns a cell's folder, in that of the sweep."""
  name = f'{game}-{seed}'
  if launcher == 'kubernetes':
    # Folders are side by side there, and each gives its run the name.
    return dns.run_name(f'{variant}-{name}' if variant else name)
  return os.path.join(variant, name)


def _path(workdir: str) -> pathlib.Path:
  return pathlib.Path(workdir, 'state', 'cells.json')


def save(workdir: str, statuses: Iterable[Status]) -> None:
  """Keeps what `load` reads.

  Raises:
    OSError: the sweep's folder cannot be written to.
  """
  files.write_json(
    _path(workdir),
    {
      str(status.cell): {
        'state': status.state,
        'reason': status.reason,
        'retries': status.retries,
      }
      for status in statuses
    },
  )


def load(workdir: str, cells: Iterable[Cell]) -> list[Status]:
  """Returns what the sweep last said about each cell."""
  saved: Mapping[str, Any] = files.read_json(_path(workdir), {})
  return [Status(cell, **saved.get(str(cell), {})) for cell in cells]
