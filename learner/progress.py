"""Counts what a run has done, and sums it up for its records."""

import collections
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bmg.agents import types
from bmg.configs import schema

# Games that the reported mean return is taken over.
_RECENT_EPISODES = 100
_LONG_WINDOW_S = 60.0


class BatchStatistics(NamedTuple):
  """What the online unrolls of a batch tell about acting."""

  # float32 [N]: the N games that ended, raw return and length in frames.
  episode_returns: np.ndarray
  episode_lengths: np.ndarray
  # int64 [B] and float32 [B], one per unroll.
  params_versions: np.ndarray
  insert_waits: np.ndarray


def batch_statistics(online: types.Unroll) -> BatchStatistics:
  """Extracts the statistics of unrolls with leading axis [B]."""
  returns = np.asarray(online.episode_returns)
  ended = ~np.isnan(returns)
  return BatchStatistics(
    episode_returns=returns[ended],
    episode_lengths=np.asarray(online.episode_lengths)[ended],
    params_versions=np.array(online.params_version),
    insert_waits=np.array(online.insert_wait),
  )


def pack(statistics: BatchStatistics) -> str:
  """Returns statistics as text, for other hosts of the learner."""
  return json.dumps([field.tolist() for field in statistics])


def unpack(texts: Sequence[str]) -> BatchStatistics:
  """Returns the statistics of several hosts, from `pack`, as those of one."""
  parts = map(json.loads, texts)
  return BatchStatistics(
    *(np.concatenate(fields) for fields in zip(*parts, strict=True))
  )


class PeriodicTimer:
  """Says when a period has gone by."""

  def __init__(
    self, period_s: float, clock: Callable[[], float] = time.monotonic
  ):
    self._period_s = period_s
    self._clock = clock
    self._last = clock()

  def due(self) -> bool:
    """Whether the period is over; if so, the next one starts now."""
    if self._clock() - self._last < self._period_s:
      return False
    self._last = self._clock()
    return True


class Progress:
  """Counters of a run over all of its sessions, and rates of this one."""

  def __init__(
    self,
    config: schema.Config,
    saved: Mapping[str, Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts at zero, or where `saved` (from `to_dict`) left off."""
    saved = saved or {}
    self._config = config
    self._clock = clock
    self.num_frames = saved.get('num_frames', 0)
    self.num_updates = saved.get('num_updates', 0)
    self._episodes = saved.get('episodes', 0)
    # (return, length) of the last games.
    self._recent: collections.deque[tuple[float, float]] = collections.deque(
      map(tuple, saved.get('recent_episodes', ())), maxlen=_RECENT_EPISODES
    )
    self._seconds_before = saved.get('seconds', 0.0)
    self.start_session()

  def start_session(self) -> None:
    """Starts the clock: what came before was not training."""
    self._session_start = self._clock()
    # (time, frames) at the records of the long window, oldest first.
    self._marks = collections.deque([(self._session_start, self.num_frames)])
    self._start_window()

  @property
  def finished(self) -> bool:
    """Whether the run has had all of its frames."""
    return self.num_frames >= self._config.num_frames

  @property
  def mean_return(self) -> float:
    """Mean return of the last games; NaN before the first one ended."""
    return self._mean_recent(0)

  def add_step(self, statistics: BatchStatistics, waited_s: float) -> None:
    """Counts one training step.

    Args:
      statistics: of its online unrolls.
      waited_s: how long the learner had nothing to do before it.
    """
    # A restart of the learner can take it back behind parameters that actors
    # already have: that is no lag.
    lags = np.maximum(self.num_updates - statistics.params_versions, 0)
    self._lags.extend(lags.tolist())
    self._insert_waits.extend(statistics.insert_waits.tolist())
    self._waited_s += waited_s
    self._episodes += len(statistics.episode_returns)
    self._recent.extend(
      zip(
        statistics.episode_returns.tolist(),
        statistics.episode_lengths.tolist(),
        strict=True,
      )
    )
    updates = self._config.meta.updates_per_step
    self.num_updates += updates
    self.num_frames += updates * self._config.frames_per_update

  def row(self, table_sizes: Mapping[str, int]) -> dict[str, float]:
    """Sums up the time since the last row, and starts anew."""
    now = self._clock()
    window_s = max(now - self._window_start, 1e-9)
    self._marks.append((now, self.num_frames))
    while len(self._marks) > 2 and now - self._marks[1][0] >= _LONG_WINDOW_S:
      self._marks.popleft()
    long_rate = self._rate_since(*self._marks[0])
    frames_left = max(self._config.num_frames - self.num_frames, 0)
    row = {
      'num_frames': self.num_frames,
      'num_updates': self.num_updates,
      'seconds': self._seconds(),
      'frames_per_second': self._rate_since(
        self._window_start, self._window_frames
      ),
      'frames_per_second_long': long_rate,
      'episode_return': self.mean_return,
      'episode_length': self._mean_recent(1),
      'episodes': self._episodes,
      'policy_lag_mean': _mean(self._lags),
      'policy_lag_max': max(self._lags, default=math.nan),
      'replay_online': table_sizes['online'],
      'replay_size': table_sizes['replay'],
      'wait_data': self._waited_s / window_s,
      'wait_insert': _mean(self._insert_waits),
      'time_left': frames_left / long_rate if long_rate > 0 else math.nan,
    }
    self._start_window()
    return row

  def to_dict(self) -> dict[str, Any]:
    """Returns what a resumed run needs, in JSON types."""
    return {
      'num_frames': self.num_frames,
      'num_updates': self.num_updates,
      'seconds': self._seconds(),
      'episodes': self._episodes,
      'recent_episodes': [list(episode) for episode in self._recent],
    }

  def _start_window(self) -> None:
    self._window_start = self._clock()
    self._window_frames = self.num_frames
    self._waited_s = 0.0
    self._lags: list[int] = []
    self._insert_waits: list[float] = []

  def _seconds(self) -> float:
    return self._seconds_before + self._clock() - self._session_start

  def _rate_since(self, start: float, start_frames: int) -> float:
    seconds = max(self._clock() - start, 1e-9)
    return (self.num_frames - start_frames) / seconds

  def _mean_recent(self, index: int) -> float:
    return _mean([episode[index] for episode in self._recent])


def _mean(values: list[float] | list[int]) -> float:
  return float(np.mean(values)) if values else math.nan
