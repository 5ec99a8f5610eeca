"""What the user sees of a sweep: a table, or a line for each change."""

import collections
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bmg.evaluation import numbers
from bmg.launch.run import formatting
from bmg.launch.sweep import cells, folder, progress

_REDRAW_S = 2.0
# Head, borders and totals of the table, and what is said below it.
_LINES_AROUND = 8
_MIN_ROWS = 3
# Of what is written to a file.
_FILE_WIDTH = 160
# What is shown where a terminal has no room for all cells.
_FIRST = (
  cells.FAILED,
  cells.RETRYING,
  cells.STOPPING,
  cells.RUNNING,
  cells.STOPPED,
  cells.DONE,
  cells.PENDING,
)
_STYLES = {
  cells.RUNNING: 'green',
  cells.RETRYING: 'yellow',
  cells.FAILED: 'red',
  cells.PENDING: 'dim',
}


class Display:
  """Shows a sweep; a context manager, for the live view of a terminal."""

  def __init__(
    self,
    settings: folder.Settings,
    workdir: str,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
  ) -> None:
    """Prints nothing yet.

    Args:
      settings: of the sweep.
      workdir: the sweep's folder.
      console: where to print; standard output by default.
      clock: seconds, from any start.
    """
    self._num_frames = settings.num_frames
    self._workdir = workdir
    self._console = console or _standard_console()
    self._clock = clock
    self._live: Live | None = None
    self._last_update = -math.inf
    self._known: dict[cells.Cell, tuple[str, progress.Progress]] = {}

  def __enter__(self) -> 'Display':
    if self._console.is_terminal:
      self._live = Live(
        console=self._console, auto_refresh=False, transient=True
      )
      self._live.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self._live is not None:
      live = self._live
      formatting.ignore_closed_output(live.stop)

  def say(self, message: str) -> None:
    """Prints a message that stays."""
    formatting.ignore_closed_output(
      lambda: self._console.print(Text(message), soft_wrap=True)
    )

  def changed(self, status: cells.Status) -> None:
    """Says what has become of a cell; a table shows all but failures itself."""
    if self._live is None or status.state in (cells.RETRYING, cells.FAILED):
      so_far = self._progress(status)
      clock = time.strftime('%H:%M:%S')
      self.say(f'{clock} {status.cell}: {_describe(status, so_far)}')

  def update(self, statuses: Sequence[cells.Status]) -> None:
    """Redraws the table on a terminal, if it is time."""
    if self._live is None or self._clock() - self._last_update < _REDRAW_S:
      return
    self._last_update = self._clock()
    live = self._live
    # The totals have a line of scores for each variant.
    more_lines = len({status.cell.variant for status in statuses}) - 1
    height = self._console.height
    rows = max(_MIN_ROWS, height - _LINES_AROUND - more_lines)
    view = self._view(statuses, rows)
    formatting.ignore_closed_output(lambda: live.update(view, refresh=True))

  def show(self, statuses: Sequence[cells.Status]) -> None:
    """Prints the whole table, for good."""
    view = self._view(statuses, len(statuses))
    formatting.ignore_closed_output(lambda: self._console.print(view))

  def _view(self, statuses: Sequence[cells.Status], max_rows: int) -> Group:
    known = {status.cell: self._progress(status) for status in statuses}
    shown = set(
      sorted(
        range(len(statuses)),
        key=lambda index: _FIRST.index(statuses[index].state),
      )[:max_rows]
    )
    table = make_table(
      [status for index, status in enumerate(statuses) if index in shown],
      known,
      self._num_frames,
    )
    lines = totals(statuses, known, self._num_frames)
    if len(shown) < len(statuses):
      lines.insert(
        0,
        f'... and {len(statuses) - len(shown)} more cells: '
        f'python -m bmg sweep --workdir={self._workdir} --status',
      )
    return Group(table, Text('\n'.join(lines)))

  def _progress(self, status: cells.Status) -> progress.Progress:
    """Reads how far the cell has come; once per state if nothing moves it."""
    state, so_far = self._known.get(status.cell, ('', progress.Progress()))
    if state != status.state or state in cells.ACTIVE:
      so_far = progress.read(
        status.cell.workdir, status.cell.game, self._num_frames
      )
      self._known[status.cell] = (status.state, so_far)
    return so_far


def _standard_console() -> Console:
  is_terminal = sys.stdout.isatty()
  return Console(width=None if is_terminal else _FILE_WIDTH)


def _describe(status: cells.Status, so_far: progress.Progress) -> str:
  if status.state == cells.DONE:
    return (
      f'done, {numbers.large(so_far.num_frames)} frames, return '
      f'{_value(so_far.episode_return)} (human-normalised '
      f'{_value(so_far.human_normalized, formatting.percent)})'
    )
  again = f' (retry {status.retries})' if status.retries else ''
  reason = f': {status.reason}' if status.reason else ''
  if status.state == cells.FAILED:
    return f'failed for good{reason}'
  return f'{status.state}{again}{reason}'


def make_table(
  statuses: Sequence[cells.Status],
  known: Mapping[cells.Cell, progress.Progress],
  num_frames: int,
) -> Table:
  """Returns a row for each cell.

  Args:
    statuses: of the cells to show.
    known: how far each of them has come.
    num_frames: emulator frames asked of each.
  """
  table = Table()
  has_variants = any(status.cell.variant for status in statuses)
  if has_variants:
    table.add_column('variant', no_wrap=True)
  table.add_column('cell', no_wrap=True)
  table.add_column('state', no_wrap=True)
  for name in ('frames', 'frames/s', 'return', 'human', 'retries', 'left'):
    table.add_column(name, justify='right', no_wrap=True)
  table.add_column('note', overflow='fold')
  for status in statuses:
    so_far = known[status.cell]
    active = status.state in cells.ACTIVE
    table.add_row(
      *([status.cell.variant] if has_variants else []),
      status.cell.name,
      Text(status.state, style=_STYLES.get(status.state, '')),
      f'{numbers.large(so_far.num_frames)} '
      f'({formatting.percent(min(1.0, so_far.num_frames / num_frames))})',
      _value(so_far.frames_per_second, numbers.large) if active else '-',
      _value(so_far.episode_return),
      _value(so_far.human_normalized, formatting.percent),
      str(status.retries) if status.retries else '',
      _value(so_far.seconds_left, formatting.duration) if active else '-',
      Text(status.reason),
    )
  return table


def totals(
  statuses: Sequence[cells.Status],
  known: Mapping[cells.Cell, progress.Progress],
  num_frames: int,
) -> list[str]:
  """Sums all cells up, in a few lines; arguments as of `make_table`."""
  count = collections.Counter(status.state for status in statuses)
  states = ', '.join(
    f'{count[state]} {state}' for state in reversed(_FIRST) if count[state]
  )
  frames = sum(
    min(known[status.cell].num_frames, num_frames) for status in statuses
  )
  asked = num_frames * len(statuses)
  speed = sum(
    known[status.cell].frames_per_second or 0.0
    for status in statuses
    if status.state in cells.ACTIVE
  )
  pace = ''
  if speed > 0:
    left = formatting.duration((asked - frames) / speed)
    pace = f'  {numbers.large(speed)}/s  left {left}'
  retries = sum(status.retries for status in statuses)
  lines = [
    f'{len(statuses)} cells: {states}',
    f'{numbers.large(frames)} of {numbers.large(asked)} frames '
    f'({formatting.percent(frames / asked)}){pace}  retries {retries}',
  ]
  for variant in dict.fromkeys(status.cell.variant for status in statuses):
    scores = _scores_by_game(
      [status for status in statuses if status.cell.variant == variant], known
    )
    if scores:
      of = f' by {variant}' if variant else ''
      lines.append(
        f'human-normalised so far{of}: median '
        f'{formatting.percent(statistics.median(scores))}, mean '
        f'{formatting.percent(statistics.mean(scores))} over {len(scores)} '
        'games'
      )
  return lines


def _scores_by_game(
  statuses: Sequence[cells.Status],
  known: Mapping[cells.Cell, progress.Progress],
) -> list[float]:
  """Human-normalised training returns of the games, each mean over seeds."""
  scores: dict[str, list[float]] = {}
  for status in statuses:
    score = known[status.cell].human_normalized
    if score is not None:
      scores.setdefault(status.cell.game, []).append(score)
  return [statistics.mean(values) for values in scores.values()]


def _value(
  value: float | None, form: Callable[[float], str] = '{:.4g}'.format
) -> str:
  """'-' for what is not known."""
  return '-' if value is None else form(value)
