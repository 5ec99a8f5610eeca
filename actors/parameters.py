"""Fetches the learner's parameters beside the acting loop."""

import threading
import time
import types
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
from absl import logging

from bmg.agents.types import Params

# The learner counts updates from 0: no version of its own equals this.
NO_VERSION = -1
_MAX_RETRY_DELAY_S = 30.0
_REPORT_PERIOD_S = 10.0


class VersionedParams(NamedTuple):
  """Parameters, the update they come from, and the frames learned from."""

  version: int
  num_frames: int
  params: Params


class ParameterSource(Protocol):
  """What the learner serves to actors and evaluators."""

  def get_parameters(
    self, unless_version: int, /
  ) -> tuple[int, int, Params] | None:
    """Returns (version, num_frames, params as NumPy arrays).

    Args:
      unless_version: the version that the caller holds. The answer is None if
        the learner's is the same; a lower one is sent like a higher one, for a
        learner may have gone back to a checkpoint.

    Raises:
      TimeoutError: the learner did not answer in time.
    """


class ParameterFetcher:
  """A background thread that keeps the latest parameters at hand.

  It asks the source once per `request`, so that the traffic follows what the
  caller can use. A source that fails is asked again, with a growing delay and
  a warning; the caller goes on with the parameters it has.
  """

  def __init__(self, source: ParameterSource, retry_delay_s: float = 0.5):
    self._source = source
    self._retry_delay_s = retry_delay_s
    self._latest: VersionedParams | None = None
    self._arrived = threading.Event()
    self._wanted = threading.Event()
    self._closed = threading.Event()
    self._num_failures = 0
    self._last_error: Exception | None = None
    # A daemon, since a source in trouble may hold a call past our end.
    self._thread = threading.Thread(
      target=self._run, name='parameter-fetcher', daemon=True
    )

  def __enter__(self) -> 'ParameterFetcher':
    self._thread.start()
    self.request()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    self._closed.set()
    self._wanted.set()
    self._thread.join(timeout=1.0)

  def request(self) -> None:
    """Has newer parameters fetched, without waiting for them."""
    self._wanted.set()

  def latest(self) -> VersionedParams:
    """Returns the newest parameters that have arrived, without waiting.

    They lie on this process's first device, ready for use.

    Raises:
      RuntimeError: none has arrived yet; see `wait_first`.
    """
    if self._latest is None:
      raise RuntimeError('No parameters have arrived yet.')
    return self._latest

  def wait_first(
    self, stop: threading.Event, heartbeat: Callable[[], None]
  ) -> bool:
    """Waits for the first parameters; returns False if stopped before."""
    started = reported = time.monotonic()
    while not self._arrived.wait(timeout=0.1):
      heartbeat()
      if stop.is_set():
        return False
      now = time.monotonic()
      if now - reported >= _REPORT_PERIOD_S:
        reported = now
        logging.info(
          'Waiting for the first parameters from the learner for %.0f s '
          '(%d failed calls, last error: %r)',
          now - started,
          self._num_failures,
          self._last_error,
        )
    return True

  def _run(self) -> None:
    num_failures_in_a_row = 0
    while True:
      self._wanted.wait()
      self._wanted.clear()
      if self._closed.is_set():
        return
      try:
        self._fetch()
        num_failures_in_a_row = 0
      # Whatever ails the learner, acting goes on and this thread must not die.
      except Exception as error:
        self._num_failures += 1
        self._last_error = error
        delay = min(
          self._retry_delay_s * 2**num_failures_in_a_row, _MAX_RETRY_DELAY_S
        )
        num_failures_in_a_row += 1
        logging.warning(
          'No parameters from the learner (%r); next attempt in %.1f s',
          error,
          delay,
        )
        self._closed.wait(delay)
        self._wanted.set()

  def _fetch(self) -> None:
    known = self._latest.version if self._latest else NO_VERSION
    answer = self._source.get_parameters(known)
    if answer is None:
      if not self._arrived.is_set():
        # The learner answers, but has nothing yet: ask again soon.
        self._closed.wait(self._retry_delay_s)
        self._wanted.set()
      return
    version, num_frames, params = answer
    self._latest = VersionedParams(version, num_frames, jax.device_put(params))
    self._arrived.set()
