"""Assembles batches and puts them on the devices while the learner works."""

import queue
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import numpy as np
from absl import logging

from bmg.agents import types
from bmg.configs import schema
from bmg.learner import progress, training

_SLICE_S = 0.1
_JOIN_S = 10.0


class UnrollReader(Protocol):
  """Where unrolls come from; see `replay.reader.ReplayReader`."""

  def online(
    self,
    num_unrolls: int,
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> types.Unroll | None: ...

  def replay(
    self,
    num_unrolls: int,
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> types.Unroll | None: ...

  def sizes(self) -> dict[str, int]: ...

  def checkpoint(self, timeout: float) -> list[str]: ...

  def close(self) -> None: ...


class Prefetched(NamedTuple):
  """A batch on the devices, and what there is to report about its data."""

  batch: training.DeviceBatch
  statistics: progress.BatchStatistics


class Prefetcher:
  """A thread that keeps up to `learner.prefetch` batches ready.

  It calls `heartbeat` while it waits for unrolls; whoever waits for it need
  not, so that a thread that is stuck is noticed.
  """

  def __init__(
    self,
    reader: UnrollReader,
    config: schema.Config,
    put: Callable[[training.TrainBatch], training.DeviceBatch],
    heartbeat: Callable[[], None],
  ):
    """Starts the thread.

    Args:
      reader: gives unrolls; used by no one else meanwhile.
      config: the run's configuration.
      put: sends a batch to the devices.
      heartbeat: see above.
    """
    self._reader = reader
    self._config = config
    self._put = put
    self._heartbeat = heartbeat
    self._queue: queue.Queue[Prefetched] = queue.Queue(config.learner.prefetch)
    self._closed = threading.Event()
    self._error: BaseException | None = None
    self._thread = threading.Thread(
      target=self._run, name='prefetch', daemon=True
    )
    self._thread.start()

  @property
  def empty(self) -> bool:
    """Whether the next batch is still to come."""
    return self._queue.empty()

  def get(self, stop: threading.Event) -> Prefetched | None:
    """Waits for the next batch.

    Returns:
      None if `stop` was set first.

    Raises:
      Exception: whatever ended the thread.
    """
    while not stop.is_set():
      if self._error is not None:
        raise self._error
      try:
        return self._queue.get(timeout=_SLICE_S)
      except queue.Empty:
        pass
    return None

  def close(self) -> None:
    """Ends the thread; batches that are ready are dropped."""
    self._closed.set()
    self._thread.join(_JOIN_S)
    if self._thread.is_alive():
      logging.warning('Left a thread behind that still reads from replay.')

  def _run(self) -> None:
    try:
      while not self._closed.is_set():
        item = self._assemble()
        while item is not None and not self._closed.is_set():
          try:
            self._queue.put(item, timeout=_SLICE_S)
            break
          except queue.Full:
            pass
    except Exception as error:
      self._error = error

  def _assemble(self) -> Prefetched | None:
    """Draws this host's batch; None if the prefetcher was closed first."""
    replay = self._config.replay
    meta = self._config.meta
    num_hosts = self._config.learner.num_hosts
    num_online = meta.updates_per_step * replay.online_batch // num_hosts
    num_replay = meta.updates_per_step * replay.replay_batch // num_hosts
    num_bootstrap = (
      meta.num_bootstrap_batches * meta.bootstrap_batch // num_hosts
    )

    if num_replay + num_bootstrap > 0:
      drawn = self._read(self._reader.replay, num_replay + num_bootstrap)
      if drawn is None:
        return None
    # The queue comes last, so that its unrolls are as new as can be.
    online = self._read(self._reader.online, num_online)
    if online is None:
      return None

    parts = [_split(online, meta.updates_per_step)]
    if num_replay > 0:
      replayed = jax.tree.map(lambda x: x[:num_replay], drawn)
      parts.append(_split(replayed, meta.updates_per_step))
    own = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)
    if num_bootstrap > 0:
      extra = jax.tree.map(lambda x: x[num_replay:], drawn)
      bootstrap = _split(extra, meta.num_bootstrap_batches)
    else:
      bootstrap = jax.tree.map(lambda x: x[:0], own)
    batch = self._put(training.TrainBatch(own, bootstrap))
    return Prefetched(batch, progress.batch_statistics(online))

  def _read(
    self,
    read: Callable[..., types.Unroll | None],
    num_unrolls: int,
  ) -> types.Unroll | None:
    """Reads on through timeouts: replay and actors can be restarted."""
    while not self._closed.is_set():
      try:
        return read(num_unrolls, self._closed, self._heartbeat)
      except TimeoutError as error:
        logging.warning('Learner waits for data: %s', error)
    return None


def _split(unrolls: types.Unroll, num_batches: int) -> types.Unroll:
  """[N * B, ...] -> [N, B, ...], in the order that they were read."""
  return jax.tree.map(
    lambda x: x.reshape(num_batches, -1, *x.shape[1:]), unrolls
  )
