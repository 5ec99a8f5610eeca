"""Reads batches of unrolls from the Reverb tables, always with a deadline."""

import queue
import threading
import time
from collections.abc import Callable

import numpy as np
import reverb

from agents import types
from configs import schema
from replay import monitor as monitor_lib
from replay import table_reader, tables

# How often a wait looks at `stop` and at the state of the server.
_SLICE_S = 0.1


class ReplayTimeout(TimeoutError):  # noqa: N818 (says what happened)
  """A table gave nothing within `replay.read_timeout_s`; says why."""


class ReplayReader:
  """The learner's view of the tables.

  One background thread per table keeps about one batch of unrolls ready. All
  methods may be called from any thread, but only one at a time per table.
  A server that dies and comes back on its address is found again.
  """

  def __init__(self, address: str, config: schema.Config, num_actions: int):
    """Starts reading ahead; does not need a server yet.

    Args:
      address: host:port of the Reverb server.
      config: the run's configuration.
      num_actions: size A of the action set.
    """
    self._address = address
    self._config = config
    names = tables.table_names(config)
    self._monitor = monitor_lib.ServerMonitor(address, names)
    spec = tables.unroll_spec(config, num_actions)
    bootstrap_batch = (
      config.meta.bootstrap_batch if config.meta.num_bootstrap_batches else 0
    )
    # A longer queue would only make the online unrolls older.
    lengths = {
      tables.ONLINE: config.replay.online_batch,
      tables.REPLAY: max(config.replay.replay_batch, bootstrap_batch),
    }
    self._readers = {
      name: table_reader.TableReader(address, name, spec, lengths[name])
      for name in names
    }
    # Unrolls of batches that a timeout or a stop cut short.
    self._partial: dict[str, list[types.Unroll]] = {name: [] for name in names}

  def online(
    self,
    num_unrolls: int,
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> types.Unroll | None:
    """Takes the next unrolls from the queue.

    Args:
      num_unrolls: size of the batch, n.
      stop: ends the wait when set.
      heartbeat: called at every turn of the wait.

    Returns:
      A batch: every field as NumPy, with a leading axis [n]. None if `stop` was
      set before it was complete.

    Raises:
      ReplayTimeout: nothing came for `replay.read_timeout_s`. The unrolls that
        came before are kept for the next call.
      FatalError: an unroll does not have the run's shapes and dtypes.
    """
    return self._read(tables.ONLINE, num_unrolls, stop, heartbeat)

  def replay(
    self,
    num_unrolls: int,
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> types.Unroll | None:
    """Draws unrolls uniformly from replay; otherwise as `online`.

    While replay holds less than `min_replay_size`, the queue is emptied: its
    bound would else stop the actors before they have filled replay. What is
    dropped from the queue stays in replay.
    """
    online = self._readers[tables.ONLINE]

    def empty_queue_while_filling() -> None:
      size = self._monitor.sizes[tables.REPLAY]
      online.dropping = 0 <= size < self._config.replay.min_replay_size
      heartbeat()

    try:
      return self._read(
        tables.REPLAY, num_unrolls, stop, empty_queue_while_filling
      )
    finally:
      online.dropping = False

  def sizes(self) -> dict[str, int]:
    """Returns the unrolls in each table, at most a second or so old.

    Never waits. While the server is away the last known sizes are returned, and
    -1 before it was ever seen or where there is no such table.
    """
    return {tables.ONLINE: -1, tables.REPLAY: -1} | self._monitor.sizes

  def checkpoint(self, timeout: float) -> str:
    """Has the server save its tables; slow (30 MB/s), inserts go on meanwhile.

    Args:
      timeout: deadline in seconds.

    Returns:
      The path of the checkpoint, on the server's machine.

    Raises:
      TimeoutError: not done in time. The server may still finish it.
      RuntimeError: the server could not save.
    """
    answer: queue.Queue = queue.Queue()

    def ask() -> None:
      try:
        answer.put(reverb.Client(self._address).checkpoint())
      except RuntimeError as error:
        answer.put(error)

    # Reverb's call has no deadline: it gets a thread that can be left behind.
    threading.Thread(target=ask, name='replay-checkpoint', daemon=True).start()
    try:
      result = answer.get(timeout=timeout)
    except queue.Empty:
      raise TimeoutError(
        f'Reverb server {self._address} did not save its tables in '
        f'{timeout:.0f} s ({self._state()})'
      ) from None
    if isinstance(result, RuntimeError):
      raise result
    return result

  def close(self) -> None:
    """Ends the threads, as far as they do so within a second.

    A thread that waits for a dead server, or at an empty table, stays behind.
    Should its call return while the interpreter shuts down, the process aborts:
    leave such a process by `os._exit`.
    """
    for reader in self._readers.values():
      reader.close()
    self._monitor.close()

  def _read(
    self,
    table: str,
    num_unrolls: int,
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> types.Unroll | None:
    reader = self._readers[table]
    unrolls = self._partial[table]
    deadline = time.monotonic() + self._config.replay.read_timeout_s
    while len(unrolls) < num_unrolls:
      heartbeat()
      if stop.is_set():
        return None
      try:
        unrolls.append(reader.get(timeout=_SLICE_S))
        deadline = time.monotonic() + self._config.replay.read_timeout_s
      except queue.Empty:
        reader.renew_if_stuck(self._available(table), self._monitor.num_answers)
        if time.monotonic() > deadline:
          raise ReplayTimeout(
            f'table {table!r} gave {len(unrolls)} of {num_unrolls} unrolls, '
            f'and none for {self._config.replay.read_timeout_s:.0f} s '
            f'({self._state()}). {self._advice(table)}'
          ) from None
    self._partial[table] = unrolls[num_unrolls:]
    return types.Unroll(
      *(np.stack(fields) for fields in zip(*unrolls[:num_unrolls], strict=True))
    )

  def _minimum(self, table: str) -> int:
    """Unrolls that `table` must hold before it gives any."""
    return self._config.replay.min_replay_size if table == tables.REPLAY else 1

  def _available(self, table: str) -> bool:
    """Whether the server says that `table` could give an unroll."""
    return self._monitor.sizes[table] >= self._minimum(table)

  def _state(self) -> str:
    silence = self._monitor.silence_s
    if self._monitor.num_answers == 0 or silence > 5.0:
      return (
        f'the Reverb server at {self._address} has not answered for '
        f'{silence:.0f} s'
      )
    sizes = ', '.join(
      f'{name!r} holds {size}' for name, size in self._monitor.sizes.items()
    )
    return f'the Reverb server at {self._address} answers: {sizes}'

  def _advice(self, table: str) -> str:
    return (
      f'It gives unrolls once it holds {self._minimum(table)}; the actors fill '
      'it: see their logs.'
    )
