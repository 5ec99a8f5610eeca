"""Writes unrolls into the Reverb tables, and outlives the server."""

import threading
import time
from collections.abc import Callable, Sequence

import reverb
from absl import logging

from bmg.agents import types
from bmg.configs import schema
from bmg.replay import tables

# How often a blocked write looks at `stop`.
_SLICE_S = 0.5
_REPORT_PERIOD_S = 30.0
# Deadline of the question whether the server is alive.
_PROBE_S = 1
# This many probes in a row that find room in the queue, while nothing of ours
# gets in, mean that our connection leads nowhere.
_MAX_IDLE_PROBES = 3
_MAX_REFUSALS = 5


class ReplayWriter:
  """An `UnrollWriter` that puts every unroll into all tables of the run.

  An unroll is appended as a single step, to which one item per table refers:
  its frames are compressed, sent and stored once. (Not `client.insert`: it has
  no deadline, and raises when the server dies.)

  `write` returns when the server has confirmed every unroll. If the server dies
  before that, the unrolls are sent again once it is back, so an unroll may come
  twice: when the confirmation got lost, but not the checkpoint of the tables.
  Unrolls that were confirmed and not checkpointed are lost with the server.
  """

  def __init__(self, address: str, config: schema.Config, token: str = ''):
    """Connects at the first write; does not need a server yet.

    Args:
      address: host:port of the Reverb server.
      config: the run's configuration.
      token: of the run, see `tables.server_name`.
    """
    self._address = address
    self._config = config
    self._tables = [
      tables.server_name(table, token) for table in tables.table_names(config)
    ]
    self._queue = tables.server_name(tables.ONLINE, token)
    self._writer: reverb.TrajectoryWriter | None = None
    self._spec: types.Unroll | None = None
    # In a row.
    self._num_refusals = 0

  def write(
    self,
    unrolls: Sequence[types.Unroll],
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> float:
    """Writes unrolls and waits until the tables hold them.

    Args:
      unrolls: single ones, shaped as `tables.unroll_spec`.
      stop: when set, the write is given up within two seconds; what was not
        confirmed may or may not arrive.
      heartbeat: called at every turn of the wait.

    Returns:
      Seconds spent waiting for the server, mostly for room in the queue; the
      work of compressing is not counted.

    Raises:
      FatalError: an unroll does not have the run's shapes and dtypes.
      RuntimeError: the server refuses the unrolls time and again.
    """
    for unroll in unrolls:
      self._check(unroll)
    waited = 0.0
    while not stop.is_set():
      self._append(unrolls)
      start = time.monotonic()
      confirmed = self._flush(stop, heartbeat)
      waited += time.monotonic() - start
      if confirmed:
        break
      # What is not confirmed lives in the writer: begin with an empty one.
      self.close()
    return waited

  def close(self) -> None:
    """Drops the connection, without waiting for what is not confirmed."""
    if self._writer is not None:
      self._writer.close()
      self._writer = None

  def _append(self, unrolls: Sequence[types.Unroll]) -> None:
    if self._writer is None:
      # `validate_items` would ask the server for the signature, without a
      # deadline.
      self._writer = reverb.Client(self._address).trajectory_writer(
        num_keep_alive_refs=1, validate_items=False
      )
    for unroll in unrolls:
      self._writer.append(unroll)
      newest = types.Unroll(*(column[-1] for column in self._writer.history))
      for table in self._tables:
        self._writer.create_item(table, priority=1.0, trajectory=newest)

  def _flush(
    self, stop: threading.Event, heartbeat: Callable[[], None]
  ) -> bool:
    """Waits for confirmation; False if the connection has to be made anew."""
    assert self._writer is not None
    start = last_probe = time.monotonic()
    last_report = start
    idle_probes = 0
    state = 'unknown'
    while not stop.is_set():
      heartbeat()
      try:
        self._writer.flush(timeout_ms=int(_SLICE_S * 1000))
        self._num_refusals = 0
        return True
      except reverb.DeadlineExceededError:
        now = time.monotonic()
      except RuntimeError as error:
        self._num_refusals += 1
        if self._num_refusals == _MAX_REFUSALS:
          raise
        logging.warning(
          'Reverb server %s refused unrolls (%s); trying again.',
          self._address,
          error,
        )
        stop.wait(_SLICE_S)
        return False
      if now - last_probe >= self._config.actors.insert_timeout_s:
        room = self._room()
        idle_probes = idle_probes + 1 if room else 0
        if idle_probes == _MAX_IDLE_PROBES:
          logging.warning(
            'Reverb server %s has room but confirms nothing; connecting anew.',
            self._address,
          )
          return False
        state = (
          'does not answer'
          if room is None
          else f'answers; its queue has room for {room} unrolls'
        )
        last_probe = time.monotonic()
      if now - last_report >= _REPORT_PERIOD_S:
        logging.info(
          'Waited %.0f s to insert unrolls: Reverb server %s %s.',
          now - start,
          self._address,
          state,
        )
        last_report = now
    return False

  def _room(self) -> int | None:
    """Free places in the queue; None if the run's server does not answer.

    A client of its own asks: where the server's machine vanished without
    closing its connections, old clients never notice.
    """
    try:
      info = reverb.Client(self._address).server_info(timeout=_PROBE_S)
    except (reverb.ReverbError, RuntimeError):
      return None
    queue = info.get(self._queue)
    return None if queue is None else queue.max_size - queue.current_size

  def _check(self, unroll: types.Unroll) -> None:
    """Checks shapes and dtypes; Reverb itself would take anything."""
    if self._spec is None:
      num_actions = unroll.behaviour_logits.shape[-1]
      self._spec = tables.unroll_spec(self._config, num_actions)
    tables.check_unroll(unroll, self._spec)
