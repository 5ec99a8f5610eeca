"""Final scores by the paper's protocol, of finished and unfinished runs.

Flennerhag et al. (2022) score a run by its mean training return between 190M
and 200M frames, and a game by the mean over seeds. The last 5 % of a shorter
run stand in for that window.

The learner records, at each log period, the mean return of the last 100
training games. A score here is the mean of these rows, so that the window
reaches back by as many games before its start.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bmg.evaluation import atari_scores
from bmg.evaluation.report import collect

PROTOCOL_FRAMES = 200_000_000
WINDOW_SHARE = 0.05


class RunScore(NamedTuple):
  """The score of one run, or how it stands so far."""

  run: collect.Run
  # Mean raw training return; NaN if no game has ended in the window.
  value: float
  # The window, in emulator frames.
  start: float
  end: float
  # Whether training has come to the window's end.
  finished: bool


class Evaluation(NamedTuple):
  """The last evaluations of the runs of a game."""

  # Mean raw return over the runs.
  value: float
  num_runs: int
  # Emulator frames of training before the earliest of them.
  num_frames: int


class GameScore(NamedTuple):
  """The score of one label at one game."""

  label: str
  game: str
  runs: Sequence[RunScore]
  # The finished runs among them; all of them as long as none has finished.
  used: Sequence[RunScore]
  evaluation: Evaluation | None

  @property
  def values(self) -> np.ndarray:
    """Raw scores [n] of the runs that count."""
    return np.array([score.value for score in self.used])

  @property
  def mean(self) -> float:
    """Mean raw score over seeds; NaN without one."""
    return float(self.values.mean()) if self.used else np.nan

  @property
  def finished(self) -> bool:
    """Whether the score is that of whole runs."""
    return bool(self.used) and all(score.finished for score in self.used)

  @property
  def full_length(self) -> bool:
    """Whether, moreover, the runs had the paper's 200M frames."""
    return self.finished and all(
      score.end == PROTOCOL_FRAMES for score in self.used
    )


def window(num_frames: int) -> tuple[float, float]:
  """The frames (start, end] whose mean return scores a run of `num_frames`."""
  end = min(num_frames, PROTOCOL_FRAMES)
  return (1.0 - WINDOW_SHARE) * end, end


def window_mean(
  learner: pd.DataFrame | None, start: float, end: float
) -> float:
  """Mean of `episode_return` over the rows with start < num_frames <= end.

  Returns:
    NaN if no such row has a value.
  """
  found = collect.series(learner, 'episode_return')
  if found is None:
    return np.nan
  frames, returns = found
  inside = returns[(frames > start) & (frames <= end)]
  return float(inside.mean()) if len(inside) else np.nan


def score_run(run: collect.Run) -> RunScore:
  """Scores a run by the protocol, or by the last 5 % of what it has done."""
  start, end = window(run.num_frames)
  done = 0 if run.learner is None else int(run.learner['num_frames'].iloc[-1])
  if done < end:
    start, end = (1.0 - WINDOW_SHARE) * done, done
    value = window_mean(run.learner, start, end)
    return RunScore(run, value, start, end, finished=False)
  # A run ends with a whole update, a little past the frames it was asked for.
  last = end if run.num_frames > PROTOCOL_FRAMES else done
  return RunScore(
    run, window_mean(run.learner, start, last), start, end, finished=True
  )


def score_games(runs: Sequence[collect.Run]) -> list[GameScore]:
  """Scores each label at each game that it has a run of, in that order."""
  groups: dict[tuple[str, str], list[collect.Run]] = {}
  for run in runs:
    groups.setdefault((run.label, run.game), []).append(run)
  return [
    _score_game(label, game, group) for (label, game), group in groups.items()
  ]


def human_normalized(game: str, values: np.ndarray) -> np.ndarray | None:
  """Turns raw scores [n] so that 1 is a human's; None if not one of the 57."""
  scores = [atari_scores.human_normalized_score(game, v) for v in values]
  return None if None in scores else np.array(scores, float)


def _score_game(
  label: str, game: str, runs: Sequence[collect.Run]
) -> GameScore:
  scores = [score_run(run) for run in runs]
  known = [score for score in scores if not np.isnan(score.value)]
  finished = [score for score in known if score.finished]
  return GameScore(label, game, scores, finished or known, _evaluate(runs))


def _evaluate(runs: Sequence[collect.Run]) -> Evaluation | None:
  last = [
    (found[0][-1], found[1][-1])
    for run in runs
    if (found := collect.series(run.evaluation, 'mean_return'))
  ]
  if not last:
    return None
  return Evaluation(
    value=float(np.mean([value for _, value in last])),
    num_runs=len(last),
    num_frames=int(min(frames for frames, _ in last)),
  )
