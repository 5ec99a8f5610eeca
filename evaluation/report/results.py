"""What a report says, as numbers: scores, statistics and comparisons."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bmg.evaluation import atari_scores
from bmg.evaluation.report import aggregate, collect, published, scores


@dataclasses.dataclass(frozen=True)
class Aggregate:
  """Statistics of one label, or of one published agent, over games."""

  label: str
  # Human-normalised scores [num_seeds] by game; 1 is a human's.
  scores: aggregate.Scores
  # By the names in `aggregate.STATISTICS`.
  statistics: Mapping[str, aggregate.Estimate]
  # Whether all runs are whole, and whether they had the paper's 200M frames.
  finished: bool
  full_length: bool
  is_published: bool = False

  @property
  def num_runs(self) -> int:
    """Runs that the statistics are of."""
    return sum(map(len, self.scores.values()))

  @property
  def all_games(self) -> bool:
    """Whether it is over the 57 games."""
    return len(self.scores) == aggregate.NUM_GAMES

  @property
  def atari5(self) -> float | None:
    """The median over 57 games as estimated from five; 1 is a human's."""
    means = {game: float(s.mean()) for game, s in self.scores.items()}
    return aggregate.atari5_median(means)


class Improvement(NamedTuple):
  """How probably a run of one label scores higher than one of another."""

  label: str
  other: str
  num_games: int
  estimate: aggregate.Estimate


@dataclasses.dataclass(frozen=True)
class Results:
  """All numbers of a report on runs."""

  collection: collect.Collection
  # One for each label and game that there is a run of.
  game_scores: Sequence[scores.GameScore]
  # One for each label with finished runs; with unfinished ones, a second one.
  aggregates: Sequence[Aggregate]
  # The first of each label: what labels are compared by.
  first: Sequence[Aggregate]
  # The same over the games that all labels have, where these differ.
  common: Sequence[Aggregate]
  improvements: Sequence[Improvement]

  @property
  def best_runs(self) -> list[collect.Run]:
    """The finished runs of each label; all of its runs where none is."""
    runs = []
    for label in self.collection.labels:
      ours = [s for g in self.game_scores if g.label == label for s in g.used]
      finished = [s for s in ours if s.finished]
      runs += [s.run for s in finished or ours]
    return runs

  def of_game(self, game: str) -> dict[str, scores.GameScore]:
    """Scores at one game by label, in the order of labels."""
    found = {s.label: s for s in self.game_scores if s.game == game}
    return {
      label: found[label] for label in self.collection.labels if label in found
    }

  def runs_of_game(self, game: str) -> dict[str, list[collect.Run]]:
    """Runs of one game by label, in the order of labels."""
    return {
      label: [score.run for score in found.runs]
      for label, found in self.of_game(game).items()
    }


def compute(collection: collect.Collection) -> Results:
  """Scores all runs and computes all statistics."""
  game_scores = scores.score_games(collection.runs)
  aggregates = []
  for label in collection.labels:
    ours = [
      s
      for s in game_scores
      if s.label == label and s.used and s.game in atari_scores.references()
    ]
    finished = [s for s in ours if s.finished]
    if finished:
      aggregates.append(_aggregate(label, finished))
    if len(finished) < len(ours):
      aggregates.append(_aggregate(label, ours))
  # Of each label, that of the finished runs, where there are any.
  first = list({a.label: a for a in reversed(aggregates)}.values())[::-1]
  return Results(
    collection=collection,
    game_scores=game_scores,
    aggregates=aggregates,
    first=first,
    common=_common(first),
    improvements=_improvements(first),
  )


def published_aggregates(
  games: Collection[str] | None = None,
) -> list[Aggregate]:
  """Statistics of the published scores.

  Args:
    games: only over these; None for all 57.
  """
  found = []
  for key, column in published.COLUMNS.items():
    normalized = {
      game: _normalized(game, np.array([score]))
      for game, score in published.scores()[key].items()
      if games is None or game in games
    }
    if normalized:
      found.append(
        Aggregate(
          column.name,
          normalized,
          aggregate.statistics(normalized),
          finished=True,
          full_length=False,
          is_published=True,
        )
      )
  return found


def _aggregate(label: str, found: Sequence[scores.GameScore]) -> Aggregate:
  normalized = {s.game: _normalized(s.game, s.values) for s in found}
  return Aggregate(
    label,
    normalized,
    aggregate.statistics(normalized),
    finished=all(s.finished for s in found),
    full_length=all(s.full_length for s in found),
  )


def _common(aggregates: Sequence[Aggregate]) -> list[Aggregate]:
  sets = {frozenset(a.scores) for a in aggregates}
  games = frozenset.intersection(*sets) if sets else frozenset()
  if len(sets) < 2 or not games:
    return []
  return [
    dataclasses.replace(
      a,
      scores=(shared := {game: a.scores[game] for game in sorted(games)}),
      statistics=aggregate.statistics(shared),
    )
    for a in aggregates
  ]


def _improvements(aggregates: Sequence[Aggregate]) -> list[Improvement]:
  found = []
  for a, b in itertools.permutations(aggregates, 2):
    estimate = aggregate.probability_of_improvement(a.scores, b.scores)
    if estimate is not None:
      num_games = len(a.scores.keys() & b.scores.keys())
      found.append(Improvement(a.label, b.label, num_games, estimate))
  return found


def _normalized(game: str, values: np.ndarray) -> np.ndarray:
  normalized = scores.human_normalized(game, values)
  assert normalized is not None, game
  return normalized
