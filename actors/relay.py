"""Hands the learner's parameters on to the actors of one host."""

import threading
import time

from absl import logging

from bmg.actors import parameters
from bmg.agents.types import Params


class ParameterRelay:
  """A `ParameterSource` that stands between another one and many clients.

  However many they are, each version is fetched once. While the source fails,
  clients go on with what it gave last.
  """

  def __init__(
    self, source: parameters.ParameterSource, period_s: float
  ) -> None:
    """Asks nothing yet.

    Args:
      source: of the parameters.
      period_s: how long its answer does for later questions, seconds.
    """
    self._source = source
    self._period_s = period_s
    self._lock = threading.Lock()
    self._latest: tuple[int, int, Params] | None = None
    self._asked_at = float('-inf')

  def get_parameters(
    self, unless_version: int
  ) -> tuple[int, int, Params] | None:
    """Answers as the learner would, `period_s` ago at most; safe in any thread.

    Raises:
      TimeoutError, RuntimeError: the source has failed, and had given nothing.
    """
    with self._lock:
      if time.monotonic() - self._asked_at > self._period_s:
        self._ask()
        self._asked_at = time.monotonic()
      latest = self._latest
    if latest is None or latest[0] == unless_version:
      return None
    return latest

  def _ask(self) -> None:
    known = self._latest[0] if self._latest else parameters.NO_VERSION
    try:
      answer = self._source.get_parameters(known)
    except (TimeoutError, RuntimeError) as error:
      if self._latest is None:
        raise
      logging.warning('No parameters from the learner: %s', error)
      return
    if answer is not None:
      self._latest = answer
