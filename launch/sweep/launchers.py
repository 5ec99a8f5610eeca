"""How the cells of a sweep are started, watched and stopped, by launcher.

Each cell is started by the command `python -m bmg train`. On this machine
that process is the run; of a cluster it only submits the run's jobs, which are
then watched in the run's files and in the scheduler's queue.
"""

import collections
import math
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from bmg.launch import cli
from bmg.launch.local import environment as environment_lib
from bmg.launch.local import launcher as local
from bmg.launch.local import supervisor
from bmg.launch.run import files, node_log
from bmg.launch.sweep import cells, progress, queues

_STOPPED_BY_OTHERS = 'was stopped, but not by the sweep'
# What was told to kill its own is itself killed after so long.
_KILL_S = 2.0
# Each submission is a Python process of some seconds.
_MAX_SUBMISSIONS = 4
# Clocks of a cluster's machines may differ by so much.
_CLOCK_SKEW_S = 60.0


class Ending(NamedTuple):
  """How a cell that was started came to an end."""

  # DONE, STOPPED (it was asked to) or FAILED.
  state: str
  reason: str = ''
  # Starting it again would be pointless.
  hopeless: bool = False


class Launcher(Protocol):
  """Starts, watches and stops cells; waits for nothing."""

  # Whether cells live on without the sweep.
  detached: bool

  def adopt(self, cell: cells.Cell) -> bool:
    """Takes over a cell that an earlier sweep started and that still runs."""

  def obstacle(self, cell: cells.Cell) -> str | None:
    """Says why the cell cannot be started now; None where it can.

    '' is a reason of which nothing need be said.
    """

  def start(self, cell: cells.Cell) -> None:
    """Starts the cell, or goes on with it.

    Raises:
      OSError: the machine has no room for it.
    """

  def poll(self, cell: cells.Cell) -> Ending | None:
    """Returns how a started cell ended; None while it goes on."""

  def stop(self, cell: cells.Cell) -> None:
    """Asks a started cell to save and end."""

  def kill(self, cell: cells.Cell) -> None:
    """Ends a started cell at once."""


def train_log(cell: cells.Cell) -> pathlib.Path:
  """What the command of the cell prints."""
  return pathlib.Path(cell.workdir, 'logs', 'train.log')


def _popen(
  cell: cells.Cell,
  command: Sequence[str],
  start: int,
  environment: Mapping[str, str] | None = None,
  pass_fds: Sequence[int] = (),
  prepare_child: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
  """Starts a command of the cell, with its output in the cell's log."""
  with node_log.NodeLog(train_log(cell)).open_for_start(start) as output:
    return subprocess.Popen(
      command,
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      env={
        **os.environ,
        'PYTHONPATH': environment_lib.python_path(os.environ),
        **(environment or {}),
      },
      # A terminal's Ctrl-C reaches the sweep alone.
      start_new_session=True,
      pass_fds=pass_fds,
      preexec_fn=prepare_child,
    )


class LocalLauncher:
  """Runs cells on this machine. They stop in order when this process dies."""

  detached = False

  def __init__(
    self, num_frames: int, slots: Sequence[Mapping[str, str]], lock_fd: int
  ) -> None:
    """Starts nothing.

    Args:
      num_frames: emulator frames asked of each cell.
      slots: environment variables of each cell that runs at a time.
      lock_fd: file descriptor of the sweep's lock. Its folder stays locked
        until the last cell has gone, even if this process is killed.
    """
    self._num_frames = num_frames
    self._slots = slots
    self._lock_fd = lock_fd
    self._processes: dict[cells.Cell, subprocess.Popen[bytes]] = {}
    self._taken: dict[cells.Cell, int] = {}
    self._started_at: dict[cells.Cell, float] = {}
    self._starts: collections.Counter[cells.Cell] = collections.Counter()
    self._asked: set[cells.Cell] = set()
    self._kill_at: dict[cells.Cell, float] = {}

  def adopt(self, cell: cells.Cell) -> bool:
    return False

  def obstacle(self, cell: cells.Cell) -> str | None:
    if local.in_use(cell.workdir):
      return 'waits for another run in its folder, or nodes that still stop'
    return None

  def start(self, cell: cells.Cell) -> None:
    parent = os.getpid()

    def prepare_child() -> None:
      # Not this process's handler, should the parent have gone already.
      signal.signal(signal.SIGTERM, signal.SIG_DFL)
      supervisor.die_with_parent(signal.SIGTERM, parent)

    slot = min(set(range(len(self._slots))) - set(self._taken.values()))
    self._starts[cell] += 1
    self._started_at[cell] = time.time()
    self._processes[cell] = _popen(
      cell,
      cell.command,
      self._starts[cell],
      self._slots[slot],
      (self._lock_fd,),
      prepare_child,
    )
    self._taken[cell] = slot

  def poll(self, cell: cells.Cell) -> Ending | None:
    status = self._processes[cell].poll()
    if status is None:
      node_log.NodeLog(train_log(cell)).limit_size()
      if time.monotonic() > self._kill_at.get(cell, math.inf):
        self._processes[cell].kill()
      return None
    del self._processes[cell], self._taken[cell]
    return self._ending(cell, status)

  def stop(self, cell: cells.Cell) -> None:
    self._asked.add(cell)
    self._processes[cell].terminate()

  def kill(self, cell: cells.Cell) -> None:
    # The second and the third signal, which make it kill its own; nothing would
    # be left behind without them, but nodes would take their time.
    self._kill_at[cell] = time.monotonic() + _KILL_S
    self._processes[cell].send_signal(signal.SIGINT)
    self._processes[cell].send_signal(signal.SIGHUP)

  def _ending(self, cell: cells.Cell, status: int) -> Ending:
    so_far = progress.read(cell.workdir, cell.game, self._num_frames)
    asked = cell in self._asked
    if so_far.learned and (so_far.evaluated or (status == 0 and not asked)):
      return Ending(cells.DONE)
    if cell in self._kill_at:
      return Ending(cells.STOPPED, 'killed before everything was saved')
    # Before it handles signals, a run simply dies of SIGTERM; so be it.
    if asked and status in (0, -signal.SIGTERM):
      return Ending(cells.STOPPED)
    if status == 0:
      return Ending(cells.FAILED, _STOPPED_BY_OTHERS)
    said = supervisor.describe_exit(status)
    words = progress.last_words(train_log(cell))
    if status == cli.USAGE_STATUS:
      return Ending(cells.FAILED, words or said, hopeless=True)
    failure = progress.node_failure(cell.workdir, self._started_at[cell])
    if failure is None or status < 0:
      failure = progress.Failure(said if status < 0 or not words else words)
    return Ending(cells.FAILED, *failure)


class ClusterLauncher:
  """Submits cells to a cluster, where they live on without the sweep."""

  detached = True

  def __init__(
    self,
    num_frames: int,
    queue: queues.Queue,
    period_s: float = 5.0,
  ) -> None:
    """Submits nothing.

    Args:
      num_frames: emulator frames asked of each cell.
      queue: knows which jobs there are.
      period_s: how often the files of each cell are looked at.
    """
    self._num_frames = num_frames
    self._queue = queue
    self._period_s = period_s
    self._next_look: dict[cells.Cell, float] = {}
    self._submissions: dict[cells.Cell, subprocess.Popen[bytes]] = {}
    # When each was submitted, in seconds since the epoch.
    self._submitted_at: dict[cells.Cell, float] = {}
    # The first look at the queue that did not show the cell's job.
    self._missed_at: dict[cells.Cell, float] = {}
    self._starts: collections.Counter[cells.Cell] = collections.Counter()
    # What asks them to stop; None where a submission is awaited first.
    self._stops: dict[cells.Cell, subprocess.Popen[bytes] | None] = {}

  def adopt(self, cell: cells.Cell) -> bool:
    if _is_over(cell) or not self._queue.look(cell.workdir).core:
      return False
    self._submitted_at[cell] = 0.0
    return True

  def obstacle(self, cell: cells.Cell) -> str | None:
    if len(self._submissions) >= _MAX_SUBMISSIONS:
      return ''
    if self._queue.look(cell.workdir).any:
      self._queue.clear(cell.workdir)
      return 'waits for its last jobs to end'
    return None

  def start(self, cell: cells.Cell) -> None:
    self._starts[cell] += 1
    self._missed_at.pop(cell, None)
    # Not tied to this process: a job that is submitted must be written down.
    self._submissions[cell] = _popen(cell, cell.command, self._starts[cell])

  def poll(self, cell: cells.Cell) -> Ending | None:
    if cell in self._submissions:
      status = self._submissions[cell].poll()
      if status is None:
        return None
      del self._submissions[cell]
      if status != 0:
        # The recipe has been checked, so the scheduler did not take it; it may
        # later.
        words = progress.last_words(train_log(cell))
        return Ending(cells.FAILED, words or supervisor.describe_exit(status))
      self._submitted_at[cell] = time.time()
    if self._stops.get(cell, cell) is None:
      self.stop(cell)
    if time.monotonic() < self._next_look.get(cell, 0.0):
      return None
    self._next_look[cell] = time.monotonic() + self._period_s
    so_far = progress.read(cell.workdir, cell.game, self._num_frames)
    if so_far.learned and so_far.evaluated:
      return Ending(cells.DONE)
    if not _is_over(cell) and not self._is_gone(cell):
      return None
    return self._ending(cell, so_far)

  def stop(self, cell: cells.Cell) -> None:
    self._stops[cell] = None
    if cell not in self._submissions:
      command = self._queue.stop_command(cell.workdir)
      self._stops[cell] = _popen(cell, command, self._starts[cell])

  def kill(self, cell: cells.Cell) -> None:
    self._queue.clear(cell.workdir)

  def _ending(self, cell: cells.Cell, so_far: progress.Progress) -> Ending:
    if so_far.learned:
      return Ending(cells.DONE)
    failure = progress.node_failure(
      cell.workdir, self._submitted_at[cell] - _CLOCK_SKEW_S
    )
    if failure is not None:
      return Ending(cells.FAILED, *failure)
    if cell in self._stops:
      return Ending(cells.STOPPED)
    if files.launch_state(cell.workdir) == files.STOPPED:
      return Ending(cells.FAILED, _STOPPED_BY_OTHERS)
    return Ending(cells.FAILED, 'its job has gone before the run finished')

  def _is_gone(self, cell: cells.Cell) -> bool:
    """Whether two looks at the queue, since the submission, show no job.

    One is not enough: what a job writes last takes a while to be seen on other
    machines.
    """
    look = self._queue.look(cell.workdir)
    if look.core or look.time <= self._submitted_at[cell]:
      self._missed_at.pop(cell, None)
      return False
    return look.time > self._missed_at.setdefault(cell, look.time)


def _is_over(cell: cells.Cell) -> bool:
  return files.launch_state(cell.workdir) in files.FINAL_STATES
