"""Several hosts as one learner: they find each other, meet, and keep watch.

A training step on the devices of all hosts is one computation: each process
starts it, and the devices wait in its collectives for those of the others, for
ever if one of them does not come. So the hosts agree on every step before any
of them starts it, and whoever loses another one ends, to be started again with
the others.

They talk through JAX's coordination service, a store of keys in the process of
host 0. Host 0 is the chief: it alone writes the files of the run.
"""

import contextlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import logging
from jax._src import distributed
from jax.experimental import multihost_utils

from bmg.configs import schema

_BEAT_S = 0.5
_SLICE_MS = 1000
_JOIN_S = 10.0
_BEATS = 'bmg/beats'
# Those who stop a run tell all of its hosts, but not at the same moment.
_OTHERS_STOP_S = 30.0


class LostHostError(RuntimeError):
  """Another host has died or left: all have to start again."""


class Hosts:
  """The hosts of a learner that has only this one."""

  index = 0
  count = 1

  @property
  def is_chief(self) -> bool:
    """Whether this host writes the files of the run."""
    return self.index == 0

  def exchange(self, word: str, heartbeat: Callable[[], None]) -> list[str]:
    """Meets all hosts: tells them `word`, and waits for what each has to tell.

    All hosts must make the same calls, in the same order.

    Args:
      word: any text.
      heartbeat: called all along.

    Returns:
      The words of all hosts, by index.

    Raises:
      LostHostError: the coordination service fails.
    """
    del heartbeat
    return [word]

  def broadcast(self, tree: Any) -> Any:
    """Returns the chief's `tree`, as NumPy where there are several hosts.

    Args:
      tree: pytree of arrays, of the same shapes and dtypes on all hosts.
    """
    return tree

  def any_stop(self, stop: threading.Event) -> threading.Event:
    """Returns what is set soon after the `stop` of any host."""
    return stop

  def explain_errors(self) -> contextlib.AbstractContextManager[None]:
    """Says of errors in the body that another host may have caused them."""
    return contextlib.nullcontext()

  def leave(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
    """Parts from the others, once all hosts have come to that.

    Args:
      stop: of this host.
      heartbeat: called all along.

    Raises:
      LostHostError: this host was not told to stop, another one was.
    """


def join(
  config: schema.Learner, index: int, address: str, timeout_s: float = 240.0
) -> Hosts:
  """Waits for the other hosts. JAX has their devices, too, from then on.

  To be called in the main thread, before JAX is asked for anything. A process
  whose other hosts do not come ends here, with a message and status 1.

  Args:
    config: with the number of hosts; nothing is done if there is one only.
    index: of this host.
    address: host:port under which all hosts reach host 0, which listens there.
    timeout_s: for the others to come.

  Raises:
    OSError: this is host 0, and the port of `address` is taken.
  """
  if config.num_hosts == 1:
    return Hosts()
  logging.info(
    'Learner host %s of %s; host 0 is at %s.', index, config.num_hosts, address
  )
  if index == 0:
    # JAX would crash if the port were taken.
    socket.create_server(('', int(address.rsplit(':', 1)[1]))).close()
  stop_handler = signal.getsignal(signal.SIGTERM)
  _initialize(config.num_hosts, index, address, timeout_s)
  # JAX takes SIGTERM for a notice of its own.
  signal.signal(signal.SIGTERM, stop_handler)
  # When host 0 dies, JAX says so and aborts at once. A dump of all threads
  # would follow, and hide that.
  signal.signal(signal.SIGABRT, signal.SIG_DFL)
  return _Team(config, index)


def _initialize(
  num_hosts: int, index: int, address: str, timeout_s: float
) -> None:
  """Has JAX find the other hosts, or ends the process."""
  message = (
    f'not all of the {num_hosts} learner hosts met at {address} within '
    f'{timeout_s:g} s'
  )
  # JAX's own time-out ends host 0 by an abort, and the others not at all.
  timer = threading.Timer(timeout_s, _end_process, [message])
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(
      address,
      num_hosts,
      index,
      # Slurm would have it take one device per process.
      cluster_detection_method='deactivate',
      initialization_timeout=int(2 * timeout_s) + 1,
    )
  finally:
    timer.cancel()


class _Team(Hosts):
  """One of several hosts."""

  def __init__(self, config: schema.Learner, index: int):
    self.index = index
    self.count = config.num_hosts
    self._client: Any = distributed.global_state.client
    self._num_meetings = 0
    self._watch = _Watch(self._client, config, index)

  def exchange(self, word: str, heartbeat: Callable[[], None]) -> list[str]:
    self._num_meetings += 1
    number = self._num_meetings
    with self.explain_errors():
      self._client.key_value_set(_meeting_key(number, self.index), word)
      words = [
        self._await(_meeting_key(number, host), heartbeat)
        for host in range(self.count)
      ]
      if number > 1:
        # All have come to this meeting, so they are through with the last.
        self._client.key_value_delete(_meeting_key(number - 1, self.index))
    return words

  def _await(self, key: str, heartbeat: Callable[[], None]) -> str:
    while True:
      heartbeat()
      try:
        return self._client.blocking_key_value_get(key, _SLICE_MS)
      except jax.errors.JaxRuntimeError as error:
        if 'DEADLINE_EXCEEDED' not in str(error):
          raise

  def broadcast(self, tree: Any) -> Any:
    with self.explain_errors():
      return multihost_utils.broadcast_one_to_all(
        jax.device_get(tree), is_source=self.is_chief
      )

  def any_stop(self, stop: threading.Event) -> threading.Event:
    self._watch.own_stop = stop
    return self._watch.any_stop

  @contextlib.contextmanager
  def explain_errors(self) -> Iterator[None]:
    try:
      yield
    except jax.errors.JaxRuntimeError as error:
      raise LostHostError(
        f'what the {self.count} learner hosts do together has failed; if one '
        f'of them has died, its log says why: {error}'
      ) from error

  def leave(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
    # The chief may still be saving: the watch goes on until all are here.
    self.exchange('leave', heartbeat)
    self._watch.close()
    with self.explain_errors():
      jax.distributed.shutdown()
    deadline = time.monotonic() + _OTHERS_STOP_S
    while not stop.wait(_BEAT_S):
      heartbeat()
      if time.monotonic() > deadline:
        raise LostHostError(
          'another host was told to stop, this one was not: all is saved'
        )


class _Watch:
  """Threads that tell the other hosts of this one, and look for them.

  They end the process when another host is silent for too long: its main thread
  may wait for that one in a collective, where nothing else can wake it.
  """

  def __init__(self, client: Any, config: schema.Learner, index: int):
    self.any_stop = threading.Event()
    self.own_stop = threading.Event()
    self._client = client
    self._index = index
    self._timeout_s = config.host_timeout_s
    now = time.monotonic()
    self._last_seen = dict.fromkeys(range(config.num_hosts), now)
    self._closed = threading.Event()
    # Two of them: where the network fails, the first may hang in a call.
    self._threads = [
      threading.Thread(target=target, name='hosts', daemon=True)
      for target in (self._beat, self._guard)
    ]
    for thread in self._threads:
      thread.start()

  def close(self) -> None:
    self._closed.set()
    for thread in self._threads:
      thread.join(_JOIN_S)

  def _beat(self) -> None:
    """Shows a sign of life, and takes note of those of all hosts."""
    last: dict[str, str] = {}
    for number in itertools.count():
      if self._closed.wait(_BEAT_S):
        return
      word = f'{number} {"stop" if self.own_stop.is_set() else "go"}'
      # If errors last, the guard ends the process.
      with contextlib.suppress(jax.errors.JaxRuntimeError):
        self._client.key_value_set(
          f'{_BEATS}/{self._index}', word, allow_overwrite=True
        )
        for key, word in self._client.key_value_dir_get(_BEATS):
          if last.get(key) != word:
            last[key] = word
            self._last_seen[int(key.rsplit('/', 1)[1])] = time.monotonic()
          if word.endswith('stop'):
            self.any_stop.set()

  def _guard(self) -> None:
    while not self._closed.wait(_BEAT_S):
      now = time.monotonic()
      silent = [
        str(host)
        for host, seen in self._last_seen.items()
        if host != self._index and now - seen > self._timeout_s
      ]
      if silent:
        _end_process(
          f'no sign of life from learner host {", ".join(silent)} for '
          f'{self._timeout_s:g} s, as host {self._index} sees it'
        )


def _meeting_key(number: int, host: int) -> str:
  return f'bmg/meetings/{number}/{host}'


def _end_process(message: str) -> None:
  """Ends the process, whatever its other threads are waiting for."""
  print(f'{LostHostError.__name__}: {message}', file=sys.stderr, flush=True)
  os._exit(1)
