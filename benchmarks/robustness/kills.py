"""Which processes of a run to kill and when, and what the log of it says."""

import dataclasses
import itertools
import random
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bmg.launch.run import topology


class Planned(NamedTuple):
  """A kill to come."""

  # Since the run's first row.
  seconds: float
  node: topology.NodeId


@dataclasses.dataclass
class Kill:
  """A kill, and how the run got over it: one line of the log."""

  # Since the run's first row, of which group, and which of its nodes.
  seconds: float
  group: str
  index: int
  pid: int
  # Learned from by then, as far as the records say.
  num_frames: int
  # Seconds until the node showed a sign of life again, and until the learner
  # wrote its first row after that; None where neither has come.
  back_s: float | None = None
  new_frames_s: float | None = None
  # Of a learner: frames of its newest checkpoint when it was killed, and of the
  # one that it went on from.
  saved_frames: int | None = None
  restored_frames: int | None = None

  @property
  def node(self) -> topology.NodeId:
    """The node that was killed."""
    return topology.NodeId(self.group, self.index)

  @property
  def lost_frames(self) -> int | None:
    """Frames that have to be learned from again; None but for a learner."""
    if self.restored_frames is None:
      return None
    return max(self.num_frames - self.restored_frames, 0)


@dataclasses.dataclass
class Outcome:
  """What became of a whole run."""

  # Of the launcher; None where the run had to be given up.
  exit_status: int | None
  num_frames: int
  # From the learner's first row to its last.
  seconds: float
  # Times without a new row, beyond the deadline: (since the start, how long).
  hangs: list[tuple[float, float]]
  longest_silence_s: float
  # Command lines of processes that were left behind.
  orphans: list[str] = dataclasses.field(default_factory=list)
  # Mean return of training over the last tenth of the frames, and of the last
  # evaluation; None where there is none.
  training_return: float | None = None
  evaluation_return: float | None = None

  @property
  def frames_per_second(self) -> float:
    """Over the whole run, whatever happened in it."""
    return self.num_frames / max(self.seconds, 1e-9)


def plan_kills(
  num_kills: int, span_s: float, nodes: Iterable[topology.NodeId], seed: int
) -> list[Planned]:
  """Draws moments and victims.

  The gaps are exponential, and scaled so that the last kill comes at `span_s`.
  Each kill takes a group, uniformly, and then one of its nodes.

  Args:
    num_kills: at least 1.
    span_s: in seconds.
    nodes: of the run.
    seed: of the draws.
  """
  rng = random.Random(seed)
  groups: dict[str, list[topology.NodeId]] = {}
  for node in nodes:
    groups.setdefault(node.group, []).append(node)
  moments = list(
    itertools.accumulate(rng.expovariate(1.0) for _ in range(num_kills))
  )
  return [
    Planned(
      span_s * moment / moments[-1],
      rng.choice(groups[rng.choice(list(groups))]),
    )
    for moment in moments
  ]


def record_problems(name: str, num_frames: Sequence[int]) -> list[str]:
  """Says where the counter of some records repeats itself or goes back."""
  return [
    f'{name}: line {line} is of {after} frames, the one before it of {before}'
    # The header is line 1.
    for line, (before, after) in enumerate(itertools.pairwise(num_frames), 3)
    if after <= before
  ]


def kill_problems(
  kills: Sequence[Kill], num_planned: int, deadline_s: float
) -> list[str]:
  """Says which nodes came back too late, or behind what they had saved.

  Args:
    kills: all that there were.
    num_planned: how many there should have been.
    deadline_s: what is too late.
  """
  problems = []
  if len(kills) < num_planned:
    problems.append(
      f'the run was over after {len(kills)} of {num_planned} kills: it needs a '
      'larger --config.num_frames'
    )
  for kill in kills:
    name = f'{kill.node}, killed at {kill.seconds:.0f} s,'
    if kill.back_s is None:
      problems.append(f'{name} did not come back')
    elif kill.back_s > deadline_s:
      problems.append(f'{name} came back after {kill.back_s:.0f} s only')
    restored, saved = kill.restored_frames, kill.saved_frames
    if restored is not None and saved is not None and restored < saved:
      problems.append(
        f'{name} went on from {restored} frames, though {saved} were saved'
      )
  return problems


def outcome_problems(outcome: Outcome, num_frames: int) -> list[str]:
  """Says in what a run did not end as an undisturbed one.

  Args:
    outcome: of the run.
    num_frames: what an undisturbed one ends with.
  """
  problems = [
    f'no new frame for {length:.0f} s from {start:.0f} s on'
    for start, length in outcome.hangs
  ]
  if outcome.exit_status is None:
    problems.append('the run stood still and was given up')
  elif outcome.exit_status != 0:
    problems.append(f'the run ended with status {outcome.exit_status}')
  if outcome.num_frames != num_frames:
    problems.append(
      f'the run ended at {outcome.num_frames} frames, not at {num_frames}'
    )
  problems += [f'left behind: process {text}' for text in outcome.orphans]
  return problems


def summarize(kills: Sequence[Kill]) -> dict[str, dict[str, Any]]:
  """Returns number, median and maximum of each measure, by group killed."""
  summary: dict[str, dict[str, Any]] = {}
  for group in topology.GROUPS:
    chosen = [kill for kill in kills if kill.group == group]
    if not chosen:
      continue
    summary[group] = {
      'kills': len(chosen),
      'back_s': _median_and_max([kill.back_s for kill in chosen]),
      'new_frames_s': _median_and_max([kill.new_frames_s for kill in chosen]),
      'lost_frames': _median_and_max([kill.lost_frames for kill in chosen]),
    }
  return summary


def _median_and_max(
  values: Sequence[float | None],
) -> dict[str, float] | None:
  known = [value for value in values if value is not None]
  if not known:
    return None
  return {'median': statistics.median(known), 'max': max(known)}
