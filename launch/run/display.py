"""The terminal's view of a run, from the files that its processes write.

On a terminal the status is redrawn in place; elsewhere one line is printed per
log period.
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bmg.configs import schema
from bmg.evaluation import numbers, travel
from bmg.launch.run import files, formatting, topology

_REDRAW_S = 0.5
_TAIL_BYTES = 65_536
_MAX_NAMED = 4
_WIDTH = 100
# What is recorded beside the meta-parameters, under the same prefix.
_META_MEASURES = {
  'meta/grad_norm': 'meta grad',
  'meta/grad_cosine': 'cosine',
  'meta/matching_loss': 'matching',
  'meta/outer_loss': 'outer loss',
  'meta/kl': 'KL',
}

Row = Mapping[str, Any]


class Display:
  """Shows a run; a context manager, for the live view of a terminal."""

  def __init__(
    self,
    config: schema.Config,
    workdir: str,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
  ) -> None:
    """Prints nothing yet.

    Args:
      config: the run's configuration.
      workdir: the run's folder.
      console: where to print; standard output by default.
      clock: seconds, from any start.
    """
    self._config = config
    self._nodes = topology.nodes(schema.to_dict(config))
    self._workdir = workdir
    # A file gets whole lines; a terminal would cut them off at its edge.
    self._console = console or Console(soft_wrap=not sys.stdout.isatty())
    self._clock = clock
    self._live: Live | None = None
    self._last_update = -math.inf
    self._last_shown = ''

  def __enter__(self) -> 'Display':
    if self._console.is_terminal:
      self._live = Live(
        console=self._console, auto_refresh=False, transient=False
      )
      self._live.start()
    self.say(f'Run in {self._workdir} (its logs: {self._workdir}/logs)')
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if self._live is not None:
      self._live.stop()

  def say(self, message: str) -> None:
    """Prints a message that stays."""
    formatting.ignore_closed_output(lambda: self._console.print(Text(message)))

  def update(self) -> None:
    """Shows the present state, if it is time."""
    period = self._config.learner.log_period_s
    if self._live is not None:
      period = _REDRAW_S
    if self._clock() - self._last_update < period:
      return
    self._last_update = self._clock()
    lines = self._lines()
    shown = '\n'.join(lines) if self._live is not None else '  '.join(lines)
    if self._live is not None:
      live = self._live
      formatting.ignore_closed_output(
        lambda: live.update(Text(shown), refresh=True)
      )
    elif shown != self._last_shown:
      self.say(shown)
    self._last_shown = shown

  def _lines(self) -> list[str]:
    states = {
      node: files.read_json(files.state(self._workdir, node), {})
      for node in self._nodes
    }
    folder = pathlib.Path(self._workdir)
    row = last_row(folder / 'learner.jsonl')
    meta_lines = live_meta_lines if self._live is not None else short_meta_lines
    return [
      *training_lines(row, self._config.num_frames),
      *meta_lines(row),
      *evaluation_lines(last_row(folder / 'evaluation.jsonl')),
      *health_lines(states),
    ]


def last_row(path: pathlib.Path) -> Row | None:
  """The last whole row of a JSON-lines file, or None if it has none."""
  try:
    with path.open('rb') as file:
      file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
      lines = file.read().splitlines()
  except OSError:
    return None
  for line in reversed(lines):
    try:
      return json.loads(line)
    except ValueError:
      continue
  return None


def training_lines(row: Row | None, total_frames: int) -> list[str]:
  """What the learner's last row says; [] before its first one."""
  if row is None:
    return []
  values = _Values(row)
  frames = row.get('num_frames', 0)
  share = 100 * min(1.0, frames / total_frames)
  progress = (
    f'{numbers.large(frames)} frames ({share:.1f} %)  '
    f'{values("frames_per_second", numbers.large)}/s '
    f'(long {values("frames_per_second_long", numbers.large)}/s)  '
    f'return {values("episode_return")}  '
    f'left {values("time_left", formatting.duration)}'
  )
  system = (
    f'lag {values("policy_lag_mean")} max {values("policy_lag_max")}  '
    f'replay {values("replay_size", numbers.large)} '
    f'queue {values("replay_online", numbers.large)}  '
    f'wait: learner {values("wait_data", formatting.percent)} '
    f'actor {values("wait_insert", formatting.percent)}'
  )
  losses = (
    f'loss {values("loss/total")} (policy {values("loss/policy")} '
    f'value {values("loss/value")} entropy {values("loss/entropy")})  '
    f'rejected {values("loss/rejected", formatting.percent)}  '
    f'grad {values("grad_norm")}'
  )
  return [progress, system, losses]


def live_meta_lines(row: Row | None) -> list[str]:
  """The main head's meta-parameters as a table, and the meta-gradient.

  [] before the first row, or if it has neither.
  """
  if row is None:
    return []
  values = _Values(row)
  names = _parameters(row)
  learned = [name for name in names if f'travel/{name}' in row]
  lines = []
  if learned:
    lines.append(
      'meta-parameters (logits moved since the start, '
      'last step as a share of the learning rate):'
    )
  elif names:
    lines.append('meta-parameters:')
  lines += _columns(
    [_meta_cell(name, values, name in learned) for name in names]
  )
  still = [name for name in learned if _hardly_moves(name, values)]
  if still:
    named = 'all of them' if still == learned else ', '.join(still)
    lines.append(f'  hardly moving: {named} (meta.epsilon too large?)')
  return [*lines, *_meta_gradient(row, values)]


def short_meta_lines(row: Row | None) -> list[str]:
  """The same without the steps, to be put on one line."""
  if row is None:
    return []
  values = _Values(row)
  names = _parameters(row)
  learned = [name for name in names if f'travel/{name}' in row]
  return [
    *(['meta-parameters (logits moved):'] if learned else []),
    *(
      f'{name} {values(f"meta/{name}")}'
      + (f' ({_travelled(name, values)})' if name in learned else '')
      for name in names
    ),
    *_meta_gradient(row, values),
  ]


def _parameters(row: Row) -> list[str]:
  """The names of the main head's; the auxiliary heads' are in the records."""
  return [
    name.removeprefix('meta/')
    for name in row
    if name.startswith('meta/')
    and name not in _META_MEASURES
    and '_aux' not in name
  ]


def _meta_cell(name: str, values: '_Values', learned: bool) -> str:
  cell = f'{name} {values(f"meta/{name}")}'
  if not learned:
    return cell
  step = values(f'step/{name}', _small_percent)
  return f'{cell} ({_travelled(name, values)}, step {step})'


def _travelled(name: str, values: '_Values') -> str:
  return values(f'travel/{name}', '{:+.2f}'.format)


def _hardly_moves(name: str, values: '_Values') -> bool:
  return travel.hardly_moves(
    values.number(f'travel/{name}'),
    values.number(f'step/{name}'),
    values.number('num_updates'),
  )


def _meta_gradient(row: Row, values: '_Values') -> list[str]:
  shown = [
    f'{label} {values(name)}'
    for name, label in _META_MEASURES.items()
    if name in row
  ]
  return ['  '.join(shown)] if shown else []


def _columns(cells: list[str]) -> list[str]:
  """Puts as many cells side by side as the width holds, one below another."""
  width = max(map(len, cells), default=0) + 2
  count = max(1, _WIDTH // width)
  return [
    '  ' + ''.join(cell.ljust(width) for cell in cells[i : i + count]).rstrip()
    for i in range(0, len(cells), count)
  ]


def _small_percent(value: float) -> str:
  """0.25 -> '25 %'; 0.000123 -> '0.01 %'."""
  return formatting.percent(value) if value >= 0.01 else f'{100 * value:.1g} %'


def evaluation_lines(row: Row | None) -> list[str]:
  """The last evaluation; [] before the first one."""
  if row is None:
    return []
  values = _Values(row)
  return [
    f'evaluation at {numbers.large(row.get("num_frames", 0))}: '
    f'{values("mean_return")} +- {values("std_return")}  '
    f'human-normalised {values("human_normalized_score", formatting.percent)}'
  ]


def health_lines(states: Mapping[topology.NodeId, Row]) -> list[str]:
  """How many nodes are up, and which of them are not or were restarted.

  [] where no node has a supervisor, as with threads.
  """
  if not any(states.values()):
    return []
  nodes_by_state: dict[str, list[str]] = {}
  restarts = []
  for node, known in states.items():
    state = known.get('state', files.WAITING)
    nodes_by_state.setdefault(state, []).append(str(node))
    if known.get('restarts'):
      error = known.get('last_error') or known.get('last_exit')
      restarts.append(f'{node} restarted {known["restarts"]}x ({error})')
  up = len(nodes_by_state.pop(files.RUNNING, []))
  parts = [f'nodes {up}/{len(states)} up']
  for state, names in nodes_by_state.items():
    parts.append(f'{state}: {_few(names)}')
  return ['  '.join(parts + restarts[:_MAX_NAMED])]


def _few(names: list[str]) -> str:
  more = len(names) - _MAX_NAMED
  shown = ' '.join(names[:_MAX_NAMED])
  return f'{shown} and {more} more' if more > 0 else shown


class _Values:
  """Formats columns of a row; '-' for one that is missing or not a number."""

  def __init__(self, row: Row) -> None:
    self._row = row

  def __call__(
    self, name: str, form: Callable[[float], str] = '{:.4g}'.format
  ) -> str:
    value = self.number(name)
    return '-' if math.isnan(value) else form(value)

  def number(self, name: str) -> float:
    """The column itself; NaN for one that is missing or not a number."""
    value = self._row.get(name)
    return value if isinstance(value, int | float) else math.nan
