"""Follows a run to its end, kills its nodes as planned, and keeps the log."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Sequence

from bmg.benchmarks.harness import live_run
from bmg.benchmarks.robustness import kills
from bmg.configs import schema
from bmg.evaluation import numbers
from bmg.launch.run import topology

# A run without a new row for so long is given up: it was time enough for the
# supervisors to see to a silent node.
_GIVE_UP_S = 900.0
_RESTORED = re.compile(rb'Restored checkpoint (\d+)')


class Watch:
  """Follows one run; its clock starts with the learner's first row."""

  def __init__(
    self,
    run: live_run.LiveRun,
    config: schema.Config,
    planned: Sequence[kills.Planned],
    deadline_s: float,
    report: Callable[[kills.Kill], None],
    clock: Callable[[], float] = time.monotonic,
  ):
    """Looks at nothing yet.

    Args:
      run: just started.
      config: of the run.
      planned: what to kill, in order of time.
      deadline_s: a longer time without a new row and without a kill is a hang.
      report: called with each kill that the run has got over.
      clock: in seconds.
    """
    self._run = run
    self._config = config
    self._planned = list(planned)
    self._deadline_s = deadline_s
    self._report = report
    self._clock = clock
    self.log: list[kills.Kill] = []
    # Bytes of the learner's log, when the process of that number was killed.
    self._log_sizes: dict[int, int] = {}
    # (frames, seconds of training) of every row so far: a learner that has gone
    # back shows old ones again, until it has a new one.
    self._seen: set[tuple[int, float]] = set()
    self._num_frames = 0
    self._start: float | None = None
    self._last_new = self._last_kill = clock()
    self._finished_at: int | None = None
    self._hangs: list[tuple[float, float]] = []
    self._longest_silence_s = 0.0

  def look(self) -> bool:
    """Takes in what is new, and kills if it is time; False at the run's end."""
    ended = self._run.launcher.popen.poll() is not None
    self._finished_at = self._run.finished_at()
    self._look_for_row()
    self._look_for_nodes()
    if ended:
      return False
    if self._finished_at is not None:
      # The last evaluation takes its time, and the launcher limits that.
      return True
    if self._clock() - self._last_new > _GIVE_UP_S:
      self._note_silence()
      return False
    self._kill_if_due()
    return True

  def describe(self) -> str:
    """One line on how it goes."""
    share = self._num_frames / self._config.num_frames
    words = [
      f'{self._seconds():.0f} s',
      f'{numbers.large(self._num_frames)} frames ({share:.0%})',
      f'{len(self.log)} of {len(self.log) + len(self._planned)} kills',
    ]
    waiting = [str(k.node) for k in self.log if k.new_frames_s is None]
    if waiting:
      words.append(f'to come back: {", ".join(waiting)}')
    return '  '.join(words)

  def outcome(self) -> kills.Outcome:
    """What has become of the run, as far as it was seen from here."""
    return kills.Outcome(
      exit_status=self._run.launcher.popen.poll(),
      num_frames=self._finished_at or self._num_frames,
      seconds=0.0 if self._start is None else self._last_new - self._start,
      hangs=self._hangs,
      longest_silence_s=self._longest_silence_s,
    )

  def _seconds(self) -> float:
    return 0.0 if self._start is None else self._clock() - self._start

  def _look_for_row(self) -> None:
    row = self._run.row()
    if (
      row is None or (key := (row['num_frames'], row['seconds'])) in self._seen
    ):
      return
    self._seen.add(key)
    self._num_frames = row['num_frames']
    if self._start is None:
      self._start = self._last_new = self._clock()
    self._note_silence()
    self._last_new = self._clock()
    for kill in self.log:
      if kill.back_s is not None and kill.new_frames_s is None:
        kill.new_frames_s = self._seconds() - kill.seconds
        if kill.group == topology.LEARNER:
          kill.restored_frames = self._restored_frames(kill)
        self._report(kill)

  def _note_silence(self) -> None:
    now = self._clock()
    self._longest_silence_s = max(self._longest_silence_s, now - self._last_new)
    # While nodes are killed faster than they start, there can be nothing new.
    left_alone_s = now - max(self._last_new, self._last_kill)
    if left_alone_s > self._deadline_s:
      self._hangs.append((self._seconds() - left_alone_s, left_alone_s))

  def _restored_frames(self, kill: kills.Kill) -> int:
    """Frames of the checkpoint from which a killed learner went on."""
    log = self._run.log(kill.node)[self._log_sizes[kill.pid] :]
    found = _RESTORED.search(log)
    return self._frames(int(found[1])) if found else 0

  def _frames(self, num_updates: int) -> int:
    return num_updates * self._config.frames_per_update

  def _look_for_nodes(self) -> None:
    for kill in self.log:
      if kill.back_s is None and self._run.pid(kill.node) not in (
        None,
        kill.pid,
      ):
        kill.back_s = self._seconds() - kill.seconds

  def _kill_if_due(self) -> None:
    """Kills the next node of the plan, or waits for it to be up again."""
    if (
      self._start is None
      or not self._planned
      or self._seconds() < self._planned[0].seconds
    ):
      return
    node = self._planned[0].node
    pid = self._run.pid(node)
    # The supervisor may not have noticed the last kill yet.
    if pid is None or any(kill.pid == pid for kill in self.log):
      return
    kill = kills.Kill(
      self._seconds(), node.group, node.index, pid, self._num_frames
    )
    if node.group == topology.LEARNER:
      self._log_sizes[pid] = len(self._run.log(node))
      kill.saved_frames = self._frames(self._run.newest_checkpoint())
    # It may have ended by itself just now: then it is for another look.
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)
      self.log.append(kill)
      self._planned.pop(0)
      self._note_silence()
      self._last_kill = self._clock()
