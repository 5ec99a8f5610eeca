"""Reads one Reverb table ahead, from all servers that have a part of it."""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence

import reverb
from absl import logging

from bmg import errors
from bmg.agents import types
from bmg.replay import tables

_RETRY_S = 1.0
_PUT_SLICE_S = 0.2
_JOIN_S = 0.3
# Nothing came for so long, though this many answers of the server in a row said
# that there is something: our connection leads nowhere.
_STUCK_S = 10.0
_STUCK_ANSWERS = 5
# `client.sample` wants a number; this one lasts for ever.
_ENDLESS = 2**40


class TableReader:
  """Samples unrolls from one table into a bounded queue.

  Each server fills the queue from a thread of its own, so that one that is away
  is not waited for, and equally full ones have equal shares of what is read.
  """

  def __init__(
    self, addresses: Sequence[str], name: str, spec: types.Unroll, length: int
  ):
    """Starts to read, at most `length` unrolls ahead.

    Args:
      addresses: host:port of each server.
      name: what the servers call the table.
      spec: shapes and dtypes of its unrolls.
      length: of the queue.
    """
    self._spec = spec
    self._queue: queue.Queue[types.Unroll | errors.FatalError] = queue.Queue(
      length
    )
    # Whether unrolls are thrown away as they come.
    self.dropping = False
    self.connections = [
      Connection(address, name, self._put) for address in addresses
    ]

  def get(self, timeout: float) -> types.Unroll:
    """Returns the next unroll.

    Raises:
      queue.Empty: there is none within `timeout` seconds.
      FatalError: the table holds something other than unrolls of this run.
    """
    item = self._queue.get(timeout=timeout)
    if isinstance(item, errors.FatalError):
      raise item
    return item

  def close(self) -> None:
    """Ends the threads; gives up waiting for each after a moment."""
    for connection in self.connections:
      connection.close()

  def _put(self, unroll: types.Unroll, closed: threading.Event) -> None:
    item: types.Unroll | errors.FatalError = unroll
    try:
      tables.check_unroll(unroll, self._spec)
    except errors.FatalError as error:
      item = error
    while not self.dropping and not closed.is_set():
      try:
        self._queue.put(item, timeout=_PUT_SLICE_S)
        return
      except queue.Full:
        pass


class Connection:
  """A thread that samples from the table of one server.

  It reads through one endless `client.sample`, which has only one or two
  unrolls of the queue on their way, and leaves the copying to NumPy instead of
  TensorFlow's thread pool. docs/replay.md compares other ways.

  The call has no deadline, hangs while the server is dead and goes on by itself
  when it is back. Hence the thread: it can be left behind.
  """

  def __init__(
    self,
    address: str,
    name: str,
    put: Callable[[types.Unroll, threading.Event], None],
  ):
    """Starts to read the table `name` at `address`.

    Args:
      address: host:port of the server.
      name: what it calls the table.
      put: takes an unroll, waiting for room until the event is set.
    """
    self._address = address
    self._name = name
    self._put = put
    # Answers of the server in a row that said that there is something.
    self._answers: list[int] = []
    self._last_item = -math.inf
    # Whether it waits for room in the queue.
    self._holds_one = False
    self._start()

  def renew_if_stuck(self, available: bool, num_answers: int) -> None:
    """Connects anew if the server has unrolls that do not reach us.

    Happens where the server's machine vanished without closing its connections
    and another has taken its name.

    Args:
      available: whether the server says that it could give an unroll.
      num_answers: how often it has been asked so far.
    """
    if not available or self._holds_one:
      self._answers = []
    elif num_answers not in self._answers:
      self._answers.append(num_answers)
    silent = time.monotonic() - self._last_item > _STUCK_S
    if silent and len(self._answers) >= _STUCK_ANSWERS:
      logging.warning(
        'Table %r at %s has unrolls that do not arrive; connecting anew.',
        self._name,
        self._address,
      )
      self._closed.set()
      self._start()

  def close(self) -> None:
    """Ends the thread; gives up waiting for it after a moment."""
    self._closed.set()
    self._thread.join(_JOIN_S)

  def _start(self) -> None:
    self._answers = []
    self._last_item = time.monotonic()
    self._holds_one = False
    # One event per thread: a thread that was left behind stays closed.
    self._closed = threading.Event()
    self._thread = threading.Thread(
      target=self._read,
      args=(self._closed,),
      name=f'replay-{self._name}',
      daemon=True,
    )
    self._thread.start()

  def _read(self, closed: threading.Event) -> None:
    while not closed.is_set():
      try:
        for sample in reverb.Client(self._address).sample(
          self._name, _ENDLESS, emit_timesteps=False
        ):
          if closed.is_set():
            return
          self._holds_one = True
          self._put(types.Unroll(*sample.data), closed)
          self._holds_one = False
          self._last_item = time.monotonic()
      except RuntimeError as error:
        logging.warning(
          'Reading table %r at %s: %s; trying again.',
          self._name,
          self._address,
          error,
        )
        closed.wait(_RETRY_S)
