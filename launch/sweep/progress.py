"""How far a run has come, and why it failed, from the files in its folder."""

import math
import pathlib
from typing import Any, NamedTuple

from bmg.evaluation import atari_scores
from bmg.launch.run import display, files, topology

_TAIL_BYTES = 16_384


class Progress(NamedTuple):
  """Of one run. None stands for what is not known yet."""

  num_frames: int = 0
  # Over the last minute or so of the run's last session.
  frames_per_second: float | None = None
  # Mean raw return of the last full games of training; the same, where 1 is a
  # human's.
  episode_return: float | None = None
  human_normalized: float | None = None
  seconds_left: float | None = None
  # All frames are learned; and the last evaluation is over, too.
  learned: bool = False
  evaluated: bool = False


def read(workdir: str, game: str, num_frames: int) -> Progress:
  """Reads the run's records.

  Args:
    workdir: the run's folder.
    game: that it plays.
    num_frames: emulator frames that are asked of it. A run that finished with
      fewer has not learned all of them.
  """
  folder = pathlib.Path(workdir)
  row = display.last_row(folder / 'learner.jsonl') or {}
  finished = files.read_json(files.finished(workdir), {})
  learned_frames = finished.get('num_frames', -1)
  evaluation = display.last_row(folder / 'evaluation.jsonl') or {}
  mean_return = _number(row.get('episode_return'))
  return Progress(
    num_frames=int(row.get('num_frames', 0)),
    frames_per_second=_number(row.get('frames_per_second_long')),
    episode_return=mean_return,
    human_normalized=None
    if mean_return is None
    else atari_scores.human_normalized_score(game, mean_return),
    seconds_left=_number(row.get('time_left')),
    learned=learned_frames >= num_frames,
    evaluated=evaluation.get('num_frames', -1) >= learned_frames >= num_frames,
  )


def _number(value: Any) -> float | None:
  """None for what is missing or not finite."""
  if isinstance(value, int | float) and math.isfinite(value):
    return float(value)
  return None


class Failure(NamedTuple):
  """Why a run ended, and whether starting it again is pointless."""

  reason: str
  hopeless: bool = False


def node_failure(workdir: str, since: float) -> Failure | None:
  """What the run's supervisors say about a node that failed for good.

  Args:
    workdir: the run's folder.
    since: seconds since the epoch; what is older is of an earlier session.

  Returns:
    The failure that ended the run, or None where no node failed.
  """
  states = [
    files.read_json(path, {})
    for path in pathlib.Path(workdir, 'state').glob('*-*.json')
  ]
  failed = [
    state
    for state in states
    if state.get('state') == files.FAILED and state.get('time', 0) >= since
  ]
  if not failed:
    return None
  # The others may have failed because of it.
  first = min(failed, key=lambda state: (not _is_fatal(state), state['time']))
  return Failure(
    f'{first["name"]}: {first["last_error"]} ({first["last_exit"]})',
    _is_fatal(first),
  )


def _is_fatal(state: dict[str, Any]) -> bool:
  return state['last_exit'] == f'exit status {topology.FATAL_STATUS}'


def last_words(log: pathlib.Path) -> str:
  """The last error in what a command printed since its start, or its last line.

  Args:
    log: as `node_log.NodeLog` writes it.
  """
  try:
    with log.open('rb') as file:
      file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
      lines = file.read().decode('utf-8', 'replace').splitlines()
  except OSError:
    return ''
  said: list[str] = []
  for line in reversed(lines):
    if line.startswith('--- ') and line.endswith(' ---'):
      break
    if line.startswith('error: '):
      return line.removeprefix('error: ').strip()
    if line.strip():
      said.append(line.strip())
  return said[0] if said else ''
