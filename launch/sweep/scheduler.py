"""The life of a sweep: starts its cells, retries them, stops them."""

import contextlib
import signal
import time
from collections.abc import Sequence
from typing import Protocol

from bmg.launch.sweep import cells, launchers, progress

_POLL_S = 0.2
_LONGEST_DELAY_S = 600.0
# A run may take two graces to stop, one after the other, and then some.
_MARGIN_S = 60.0
# What was killed is not waited for any longer.
_KILL_S = 10.0


class Display(Protocol):
  """What shows the sweep to the user."""

  def say(self, message: str) -> None:
    """Shows a message that stays."""

  def changed(self, status: cells.Status) -> None:
    """Shows that the state of a cell has changed."""

  def update(self, statuses: Sequence[cells.Status]) -> None:
    """Called several times a second."""

  def show(self, statuses: Sequence[cells.Status]) -> None:
    """Shows how all cells ended."""


class Sweep:
  """Runs all cells, some at a time."""

  def __init__(
    self,
    workdir: str,
    grid: Sequence[cells.Cell],
    num_frames: int,
    launcher: launchers.Launcher,
    display: Display,
    max_running: int,
    max_retries: int,
    retry_delay_s: float,
    grace_s: float,
  ) -> None:
    """Starts nothing.

    Args:
      workdir: the sweep's folder.
      grid: the cells, in the order of starting.
      num_frames: emulator frames asked of each cell.
      launcher: starts, watches and stops them.
      display: shows what goes on.
      max_running: cells that run at a time.
      max_retries: starts of a cell after failures, before it is given up.
      retry_delay_s: before the first of them; doubled for each further one.
      grace_s: `launch.grace_s` of the cells.
    """
    self._workdir = workdir
    self._num_frames = num_frames
    self._launcher = launcher
    self._display = display
    self._max_running = max_running
    self._max_retries = max_retries
    self._retry_delay_s = retry_delay_s
    self._grace_s = grace_s
    self._statuses = cells.load(workdir, grid)
    # When each cell may be started again.
    self._not_before: dict[cells.Cell, float] = {}
    self._last_failure: dict[cells.Cell, str] = {}
    self._signals: list[int] = []

  def run(self) -> int:
    """Runs until all cells are through, or the user stops them.

    SIGINT, SIGTERM and SIGHUP stop all cells in order. While they stop, a
    second one tells which still do and a third kills. Cells on a cluster go on
    after a SIGHUP: a terminal that was closed is no wish to stop them.

    Returns:
      0 where all cells are done or were stopped in order, 1 where one failed
      for good, 130 where the user had them killed.
    """
    handlers = {
      sig: signal.signal(sig, lambda sig, _: self._signals.append(sig))
      for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
      try:
        self._begin()
        self._work()
      except BaseException:
        self._stop()
        raise
      return self._conclude()
    finally:
      for sig, handler in handlers.items():
        signal.signal(sig, handler)

  def _begin(self) -> None:
    """Finds out what there still is to do."""
    for status in self._statuses:
      status.retries = 0
      so_far = self._progress(status)
      # One whose last evaluation was given up is done, too.
      if so_far.learned and (so_far.evaluated or status.state == cells.DONE):
        status.state, status.reason = cells.DONE, ''
      elif self._launcher.adopt(status.cell):
        self._change(status, cells.RUNNING, 'submitted by an earlier sweep')
      else:
        status.state, status.reason = cells.PENDING, ''
    self._save()

  def _work(self) -> None:
    while not self._signals:
      self._poll()
      self._start_some()
      self._display.update(self._statuses)
      if all(
        status.state in (cells.DONE, cells.FAILED) for status in self._statuses
      ):
        return
      time.sleep(_POLL_S)

  def _poll(self) -> None:
    for status in self._active():
      ending = self._launcher.poll(status.cell)
      if ending is not None:
        self._end(status, ending)

  def _end(self, status: cells.Status, ending: launchers.Ending) -> None:
    if ending.state != cells.FAILED or status.state == cells.STOPPING:
      self._change(status, ending.state, ending.reason)
    elif ending.hopeless:
      reason = f'{ending.reason}; another start would not help'
      self._change(status, cells.FAILED, reason)
    elif status.retries >= self._max_retries:
      reason = f'{ending.reason}; given up after {status.retries} retries'
      self._change(status, cells.FAILED, reason)
    else:
      delay_s = min(self._retry_delay_s * 2**status.retries, _LONGEST_DELAY_S)
      status.retries += 1
      self._last_failure[status.cell] = ending.reason
      self._not_before[status.cell] = time.monotonic() + delay_s
      reason = f'{ending.reason}; again in {delay_s:g} s'
      self._change(status, cells.RETRYING, reason)

  def _start_some(self) -> None:
    """Starts as many cells as may run, and one after the other."""
    room = self._max_running - len(self._active())
    now = time.monotonic()
    for status in self._statuses:
      if room <= 0 or self._signals:
        return
      if (
        status.state in (cells.PENDING, cells.RETRYING)
        and self._not_before.get(status.cell, now) <= now
      ):
        room -= self._start(status)

  def _start(self, status: cells.Status) -> bool:
    """Returns whether the cell was started."""
    obstacle = self._launcher.obstacle(status.cell)
    if obstacle is not None:
      if obstacle and obstacle != status.reason:
        self._change(status, status.state, obstacle)
      return False
    so_far = self._progress(status)
    if so_far.learned and so_far.evaluated:
      # What it wrote last was not to be seen yet when it ended.
      self._change(status, cells.DONE)
      return False
    try:
      self._launcher.start(status.cell)
    except OSError as error:
      self._end(
        status, launchers.Ending(cells.FAILED, f'cannot be started: {error}')
      )
      return False
    last = self._last_failure.get(status.cell)
    self._change(status, cells.RUNNING, f'last failure: {last}' if last else '')
    return True

  def _stop(self) -> bool:
    """Stops all cells; waits for them, but not for ever.

    Returns:
      Whether some had to be killed.
    """
    active = self._active()
    num_signals = len(self._signals)
    if num_signals and active:
      self._display.say(
        'Stopping: each cell saves its state. (Ctrl-C twice more to kill.)'
      )
    for status in active:
      self._launcher.stop(status.cell)
      self._change(status, cells.STOPPING)
    until = time.monotonic() + 2 * self._grace_s + _MARGIN_S
    while active := self._active():
      self._display.update(self._statuses)
      if len(self._signals) > num_signals:
        num_signals = len(self._signals)
        names = ', '.join(str(status.cell) for status in active)
        self._display.say(f'Still stopping: {names}. Once more to kill.')
      if len(self._signals) > 2 or time.monotonic() > until:
        self._kill(active)
        return True
      self._poll()
      time.sleep(_POLL_S)
    return False

  def _kill(self, active: Sequence[cells.Status]) -> None:
    for status in active:
      self._launcher.kill(status.cell)
    until = time.monotonic() + _KILL_S
    while self._active() and time.monotonic() < until:
      self._poll()
      time.sleep(_POLL_S)

  def _conclude(self) -> int:
    """Stops what still runs, says how it ended; returns the exit status."""
    was_stopped = bool(self._signals)
    if (
      was_stopped
      and self._launcher.detached
      and (self._signals[0] == signal.SIGHUP)
    ):
      self._display.say('The cells go on without this sweep.')
      return 0
    failed_before = self._failed()
    killed = self._stop()
    for status in self._statuses:
      if status.state == cells.RETRYING:
        self._change(status, cells.STOPPED, status.reason)
    self._display.show(self._statuses)
    failed = self._failed()
    done = sum(status.state == cells.DONE for status in self._statuses)
    self._display.say(
      f'{"Stopped" if was_stopped else "Through"}: {done} of '
      f'{len(self._statuses)} cells are done, {len(failed)} failed.'
      + (' The same command goes on.' if was_stopped or failed else '')
    )
    if killed:
      self._display.say('Killed before everything was saved.')
      return 130
    # Who stops a sweep has seen what failed before.
    seen = failed_before if was_stopped else []
    return int(len(failed) > len(seen))

  def _active(self) -> list[cells.Status]:
    return [status for status in self._statuses if status.state in cells.ACTIVE]

  def _failed(self) -> list[cells.Status]:
    return [s for s in self._statuses if s.state == cells.FAILED]

  def _progress(self, status: cells.Status) -> progress.Progress:
    return progress.read(
      status.cell.workdir, status.cell.game, self._num_frames
    )

  def _change(self, status: cells.Status, state: str, reason: str = '') -> None:
    status.state, status.reason = state, reason
    self._save()
    self._display.changed(status)

  def _save(self) -> None:
    # A full disk must not end the watch over the cells.
    with contextlib.suppress(OSError):
      cells.save(self._workdir, self._statuses)
