"""Statistics over games: rliable's, with stratified bootstrap intervals.

Agarwal et al. (2021), "Deep reinforcement learning at the edge of the
statistical precipice". Runs are resampled within each game, with replacement.

rliable wants one matrix of runs x games. The games of a sweep that is under way
have different numbers of seeds, so games with equally many seeds make a matrix
each, rliable resamples these independently, and for the statistics each run is
repeated until all games have equally many: every game has the same weight,
every run of a game too, and with equally many seeds nothing is repeated.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bmg.evaluation import atari_scores

# Human-normalised scores [num_seeds] by game; 1 is a human's.
Scores = Mapping[str, np.ndarray]

NUM_GAMES = 57
STATISTICS = ('median', 'mean', 'iqm', 'optimality_gap')
_REPETITIONS = 2000


class Estimate(NamedTuple):
  """A statistic and its 95 % interval, which is NaN where there is none."""

  value: float
  low: float = np.nan
  high: float = np.nan


def statistics(
  scores: Scores, repetitions: int = _REPETITIONS
) -> dict[str, Estimate]:
  """Median, mean, interquartile mean and optimality gap.

  Median and mean are over games, of means over seeds. The interquartile mean is
  that of the middle half of all runs. The optimality gap is by how much runs
  miss a human's score on average, where better than human counts as human.

  Args:
    scores: at least one game, each with at least one seed.
    repetitions: of the bootstrap.

  Returns:
    By the names in `STATISTICS`. There is no interval if no game has two seeds.
  """
  # Imported late: it brings arch and statsmodels, which takes seconds.
  from rliable import metrics

  def compute(*matrices: np.ndarray) -> np.ndarray:
    matrix = _join(matrices)
    return np.array(
      [
        metrics.aggregate_median(matrix),
        metrics.aggregate_mean(matrix),
        metrics.aggregate_iqm(matrix),
        metrics.aggregate_optimality_gap(matrix),
      ]
    )

  estimates = _estimate(_matrices(scores), compute, repetitions)
  return dict(zip(STATISTICS, estimates, strict=True))


def probability_of_improvement(
  scores: Scores, other: Scores, repetitions: int = _REPETITIONS
) -> Estimate | None:
  """How probably a run scores higher than one of `other` at the same game.

  Ties count half. This is rliable's definition, in a form that takes no second
  per hundred resamples.

  Returns:
    The mean over the games that both have; None if there is none.
  """
  games = sorted(scores.keys() & other.keys())
  if not games:
    return None
  ours = _matrices({game: scores[game] for game in games})
  theirs = _matrices({game: other[game] for game in games})
  # `_matrices` sorts games by their number of seeds: back to one order.
  order, other_order = _order(scores, games), _order(other, games)

  def compute(*matrices: np.ndarray) -> np.ndarray:
    x = _join(matrices[: len(ours)])[:, order]
    y = _join(matrices[len(ours) :])[:, other_order]
    difference = x[:, None, :] - y[None, :, :]
    return np.array([np.mean((np.sign(difference) + 1.0) / 2.0)])

  return _estimate([*ours, *theirs], compute, repetitions)[0]


def atari5_median(scores: Mapping[str, float]) -> float | None:
  """Estimates the median over 57 games from five of them.

  For trends only: for published agents it is off by a quarter and less.

  Args:
    scores: mean human-normalised scores by game; 1 is a human's.

  Returns:
    The median, 1 being a human's; None if one of the five is missing.
  """
  if not atari_scores.ATARI5.keys() <= scores.keys():
    return None
  logarithm = sum(
    weight * math.log10(1.0 + max(100.0 * scores[game], 0.0))
    for game, weight in atari_scores.ATARI5.items()
  )
  return (10.0**logarithm - 1.0) / 100.0


def _by_num_seeds(scores: Scores) -> dict[int, list[str]]:
  groups: dict[int, list[str]] = {}
  for game in sorted(scores):
    groups.setdefault(len(scores[game]), []).append(game)
  return groups


def _matrices(scores: Scores) -> list[np.ndarray]:
  """Stacks games with equally many seeds: matrices [num_seeds, num_games]."""
  return [
    np.stack([scores[game] for game in games], axis=1)
    for games in _by_num_seeds(scores).values()
  ]


def _order(scores: Scores, games: Sequence[str]) -> list[int]:
  """Where in the joined matrix of `games` each of them is."""
  groups = _by_num_seeds({game: scores[game] for game in games})
  joined = [game for group in groups.values() for game in group]
  return [joined.index(game) for game in games]


def _join(matrices: Sequence[np.ndarray]) -> np.ndarray:
  """Repeats runs until all games have equally many, and makes one matrix."""
  num_runs = math.lcm(*(len(matrix) for matrix in matrices))
  return np.concatenate(
    [np.repeat(matrix, num_runs // len(matrix), axis=0) for matrix in matrices],
    axis=1,
  )


def _estimate(
  matrices: Sequence[np.ndarray],
  compute: Callable[..., np.ndarray],
  repetitions: int,
) -> list[Estimate]:
  if all(len(matrix) == 1 for matrix in matrices):
    return [Estimate(float(value)) for value in compute(*matrices)]
  from rliable import library

  with _numpy_seed(0):
    points, intervals = library.get_interval_estimates(
      {'': list(matrices)}, compute, reps=repetitions
    )
  return [
    Estimate(float(value), float(low), float(high))
    for value, low, high in zip(points[''], *intervals[''], strict=True)
  ]


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
  """Makes the intervals reproducible.

  rliable draws from NumPy's global generator, whatever it is given.
  """
  state = np.random.get_state()
  np.random.seed(seed)
  try:
    yield
  finally:
    np.random.set_state(state)
