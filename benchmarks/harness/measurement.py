"""What is measured of a part: frames, time, CPU time and waiting, by window."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

WARM_UP_S = 2.0


@dataclasses.dataclass(frozen=True)
class Window:
  """One repeat of a measurement."""

  # Emulator frames, and the seconds that they took.
  frames: int
  seconds: float
  # CPU seconds of each process that took part, by its name.
  cpu_seconds: Mapping[str, float]
  # Share of the time that the learner had no data, and that actors waited for
  # room in the queue; None where nobody could wait.
  wait_data: float | None = None
  wait_insert: float | None = None


@dataclasses.dataclass(frozen=True)
class Result:
  """All repeats of one part."""

  windows: tuple[Window, ...]
  # The most memory that each process has held, in bytes.
  peak_memory: Mapping[str, int] = dataclasses.field(default_factory=dict)

  @property
  def rates(self) -> list[float]:
    """Emulator frames per second, in each window."""
    return [window.frames / window.seconds for window in self.windows]

  @property
  def frames_per_second(self) -> float:
    """Median over the windows."""
    return statistics.median(self.rates)

  @property
  def cpu_seconds_per_frame(self) -> float:
    """CPU seconds of all processes together, median over the windows."""
    return statistics.median(
      sum(window.cpu_seconds.values()) / window.frames
      for window in self.windows
    )

  @property
  def cores(self) -> dict[str, float]:
    """Cores that each process kept busy, median over the windows."""
    return {
      name: statistics.median(
        window.cpu_seconds[name] / window.seconds for window in self.windows
      )
      for name in self.windows[0].cpu_seconds
    }

  @property
  def wait_data(self) -> float | None:
    """Median over the windows."""
    return _median([window.wait_data for window in self.windows])

  @property
  def wait_insert(self) -> float | None:
    """Median over the windows."""
    return _median([window.wait_insert for window in self.windows])

  def to_dict(self) -> dict[str, Any]:
    """Returns all of it in JSON types, the medians for the reader's sake."""
    return {
      'frames_per_second': self.frames_per_second,
      'cpu_seconds_per_frame': self.cpu_seconds_per_frame,
      'cores': self.cores,
      'wait_data': self.wait_data,
      'wait_insert': self.wait_insert,
      **dataclasses.asdict(self),
    }


def from_dict(values: Mapping[str, Any]) -> Result:
  """The inverse of `Result.to_dict`."""
  return Result(
    tuple(Window(**window) for window in values['windows']),
    values['peak_memory'],
  )


class Meter:
  """Cuts a stream of frames into a warm-up and some windows."""

  def __init__(
    self,
    seconds: float,
    repeats: int,
    cpu_seconds: Callable[[], Mapping[str, float]],
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the warm-up.

    Args:
      seconds: length of a window, at least; it ends with a whole chunk.
      repeats: number of windows.
      cpu_seconds: reads the CPU time of each process so far.
      clock: in seconds.
    """
    self._seconds = seconds
    self._repeats = repeats
    self._cpu_seconds = cpu_seconds
    self._clock = clock
    self._warm = False
    self.windows: list[Window] = []
    self._start_window()

  def add(self, frames: int, wait_insert: float | None = None) -> bool:
    """Counts a chunk of frames that is done; True once all windows are full."""
    self._frames += frames
    if wait_insert is not None:
      self._waits.append(wait_insert)
    seconds = self._clock() - self._start
    if not self._warm:
      if seconds >= WARM_UP_S:
        self._warm = True
        self._start_window()
      return False
    if seconds >= self._seconds:
      cpu_seconds = self._cpu_seconds()
      self.windows.append(
        Window(
          self._frames,
          seconds,
          {
            name: cpu_seconds[name] - before
            for name, before in self._cpu_before.items()
          },
          wait_insert=statistics.fmean(self._waits) if self._waits else None,
        )
      )
      self._start_window()
    return len(self.windows) >= self._repeats

  def _start_window(self) -> None:
    self._frames = 0
    self._waits: list[float] = []
    self._cpu_before = self._cpu_seconds()
    self._start = self._clock()


def cpu_seconds(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
  """Returns the CPU time, user's and system's, that each has used so far.

  Raises:
    psutil.NoSuchProcess: one of them has ended.
  """
  result = {}
  for name, process in processes.items():
    times = process.cpu_times()
    result[name] = times.user + times.system
  return result


def _median(values: list[float | None]) -> float | None:
  known = [value for value in values if value is not None]
  return statistics.median(known) if known else None
