"""Reads batches of unrolls from the Reverb tables, always with a deadline."""

import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import reverb

from bmg.agents import types
from bmg.configs import schema
from bmg.replay import monitor as monitor_lib
from bmg.replay import table_reader, tables

# How often a wait looks at `stop` and at the state of the server.
_SLICE_S = 0.1


class ReplayTimeout(TimeoutError):  # noqa: N818 (says what happened)
  """A table gave nothing within `replay.read_timeout_s`; says why."""


class ReplayReader:
  """The learner's view of the tables, of all servers together.

  Background threads keep about one batch of unrolls of each table ready. All
  methods may be called from any thread, but only one at a time per table.
  A server that dies and comes back on its address is found again; meanwhile,
  the others give what they have.
  """

  def __init__(
    self,
    addresses: Sequence[str],
    config: schema.Config,
    num_actions: int,
    token: str = '',
  ):
    """Starts reading ahead; does not need a server yet.

    Args:
      addresses: host:port of each Reverb server.
      config: the run's configuration.
      num_actions: size A of the action set.
      token: of the run, see `tables.server_name`.
    """
    self._config = config
    names = {
      table: tables.server_name(table, token)
      for table in tables.table_names(config)
    }
    self._monitors = [
      monitor_lib.ServerMonitor(address, names) for address in addresses
    ]
    spec = tables.unroll_spec(config, num_actions)
    bootstrap_batch = (
      config.meta.bootstrap_batch if config.meta.num_bootstrap_batches else 0
    )
    # This host's share. A longer queue would only make online unrolls older.
    num_hosts = config.learner.num_hosts
    lengths = {
      tables.ONLINE: config.replay.online_batch // num_hosts,
      tables.REPLAY: max(config.replay.replay_batch, bootstrap_batch)
      // num_hosts,
    }
    self._readers = {
      table: table_reader.TableReader(addresses, name, spec, lengths[table])
      for table, name in names.items()
    }
    # Unrolls of batches that a timeout or a stop cut short.
    self._partial: dict[str, list[types.Unroll]] = {
      table: [] for table in names
    }

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
      size = self.sizes()[tables.REPLAY]
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

    Never waits. A server that is away counts with its last known sizes; -1
    before any was seen, and where there is no such table.
    """
    totals = {tables.ONLINE: -1, tables.REPLAY: -1}
    for monitor in self._monitors:
      for table, size in monitor.sizes.items():
        if size >= 0:
          totals[table] = max(totals[table], 0) + size
    return totals

  def checkpoint(self, timeout: float) -> list[str]:
    """Has the servers save their tables, all at once.

    Slow (30 MB/s); inserts go on meanwhile.

    Args:
      timeout: deadline in seconds.

    Returns:
      The path of each server's checkpoint, on its machine.

    Raises:
      TimeoutError: not done in time. A server may still finish it.
      RuntimeError: a server could not save.
    """
    answers: queue.Queue[tuple[int, str | RuntimeError]] = queue.Queue()

    def ask(index: int) -> None:
      try:
        client = reverb.Client(self._monitors[index].address)
        answers.put((index, client.checkpoint()))
      except RuntimeError as error:
        answers.put((index, error))

    waiting = set(range(len(self._monitors)))
    for index in waiting:
      # Reverb's call has no deadline: it gets a thread that can be left behind.
      threading.Thread(
        target=ask, args=(index,), name='replay-checkpoint', daemon=True
      ).start()
    deadline = time.monotonic() + timeout
    paths = [''] * len(self._monitors)
    while waiting:
      try:
        index, answer = answers.get(timeout=max(0, deadline - time.monotonic()))
      except queue.Empty:
        states = '; '.join(
          self._server_state(self._monitors[index]) for index in sorted(waiting)
        )
        raise TimeoutError(
          f'replay was not saved in {timeout:.0f} s: {states}'
        ) from None
      if isinstance(answer, RuntimeError):
        raise answer
      paths[index] = answer
      waiting.remove(index)
    return paths

  def close(self) -> None:
    """Ends the threads, as far as they do so within a second.

    A thread that waits for a dead server, or at an empty table, stays behind.
    Should its call return while the interpreter shuts down, the process aborts:
    leave such a process by `os._exit`.
    """
    for reader in self._readers.values():
      reader.close()
    for monitor in self._monitors:
      monitor.close()

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
      self._renew_stuck_connections(table)
      try:
        unrolls.append(reader.get(timeout=_SLICE_S))
        deadline = time.monotonic() + self._config.replay.read_timeout_s
      except queue.Empty:
        if time.monotonic() > deadline:
          states = '; '.join(map(self._server_state, self._monitors))
          raise ReplayTimeout(
            f'table {table!r} gave {len(unrolls)} of {num_unrolls} unrolls, '
            f'and none for {self._config.replay.read_timeout_s:.0f} s '
            f'({states}). {self._advice(table)}'
          ) from None
    self._partial[table] = unrolls[num_unrolls:]
    return types.Unroll(
      *(np.stack(fields) for fields in zip(*unrolls[:num_unrolls], strict=True))
    )

  def _renew_stuck_connections(self, table: str) -> None:
    for monitor, connection in zip(
      self._monitors, self._readers[table].connections, strict=True
    ):
      available = monitor.sizes[table] >= self._minimum(table)
      connection.renew_if_stuck(available, monitor.num_answers)

  def _minimum(self, table: str) -> int:
    """Unrolls that a server's part of `table` must hold before it gives any."""
    replay = self._config.replay
    if table == tables.REPLAY:
      return replay.per_server(replay.min_replay_size)
    return 1

  def _server_state(self, monitor: monitor_lib.ServerMonitor) -> str:
    silence = monitor.silence_s
    if monitor.num_answers == 0 or silence > 5.0:
      return (
        f'the Reverb server at {monitor.address} has not answered for '
        f'{silence:.0f} s'
      )
    if min(monitor.sizes.values()) < 0:
      return (
        f'the Reverb server at {monitor.address} answers, but has no tables of '
        "this run: it may be another run's"
      )
    sizes = ', '.join(
      f'{table!r} holds {size}' for table, size in monitor.sizes.items()
    )
    return f'the Reverb server at {monitor.address} answers: {sizes}'

  def _advice(self, table: str) -> str:
    where = ' there' if len(self._monitors) > 1 else ''
    return (
      f'It gives unrolls once it holds {self._minimum(table)}{where}; actors '
      'fill it: see their logs.'
    )
