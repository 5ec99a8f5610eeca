"""What the processes of a link did in each window, and the medians of it."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Share:
  """What one process did in one window."""

  # Unrolls or fetches, and the seconds that they took in all.
  count: int
  seconds: float
  # Bytes over TCP.
  sent: int
  received: int
  # Seconds of each turn: a write, a batch, a fetch.
  turns: Sequence[float]


class Reading(NamedTuple):
  """CPU seconds used by a moment: by role, and by the whole machine."""

  time: float
  by_role: Mapping[str, float]
  machine: float


@dataclasses.dataclass(frozen=True)
class Window:
  """One repeat of a measurement."""

  start: Reading
  end: Reading
  # Of all processes of the roles that say what they did.
  shares: Mapping[str, Sequence[Share]]

  @property
  def seconds(self) -> float:
    """Its length."""
    return self.end.time - self.start.time

  def per_second(self, role: str) -> float:
    """Unrolls or fetches of all processes of a role."""
    return sum(share.count / share.seconds for share in self.shares[role])

  def bytes_each(self, role: str) -> float:
    """Bytes that these processes sent and received for each of them."""
    shares = self.shares[role]
    traffic = sum(share.sent + share.received for share in shares)
    return traffic / sum(share.count for share in shares)

  def cores(self, role: str) -> float:
    """Cores that the processes of a role kept busy together."""
    used = self.end.by_role[role] - self.start.by_role[role]
    return used / self.seconds

  @property
  def other_cores(self) -> float:
    """Cores that programs kept busy which have nothing to do with it."""
    machine = (self.end.machine - self.start.machine) / self.seconds
    own = sum(self.cores(role) for role in self.end.by_role)
    # The kernel's counters of processes and of the machine differ a little.
    return max(0.0, machine - own)


def summarize(
  windows: Sequence[Window], counted: Sequence[str]
) -> dict[str, Any]:
  """Returns medians over the windows, in JSON types.

  Args:
    windows: of a link.
    counted: roles of processes that have said what they did; what the first one
      did is what the link has sustained.

  Returns:
    per_second: unrolls or fetches, and `windows`, those of each window.
    bytes_each: by role, over TCP, for each of them.
    turn_ms: by role, median and 95th percentile of a write, batch or fetch.
    cores: by role, that its processes kept busy together.
    other_cores: that programs kept busy which have nothing to do with it.
    cpu_ms_each: by role, CPU time for each unroll or fetch.
  """
  roles = windows[0].end.by_role
  rates = [window.per_second(counted[0]) for window in windows]
  cores = {role: [window.cores(role) for window in windows] for role in roles}
  return {
    'per_second': statistics.median(rates),
    'windows': rates,
    'bytes_each': {
      role: statistics.median(window.bytes_each(role) for window in windows)
      for role in counted
    },
    'turn_ms': {role: _turn_ms(windows, role) for role in counted},
    'cores': {role: statistics.median(cores[role]) for role in roles},
    'other_cores': statistics.median(window.other_cores for window in windows),
    'cpu_ms_each': {
      role: 1e3 * float(np.median(np.divide(cores[role], rates)))
      for role in roles
    },
  }


def _turn_ms(windows: Sequence[Window], role: str) -> dict[str, float]:
  turns = [
    seconds
    for window in windows
    for share in window.shares[role]
    for seconds in share.turns
  ]
  middle, high = 1e3 * np.percentile(turns, [50, 95])
  return {'median': float(middle), 'p95': float(high)}
