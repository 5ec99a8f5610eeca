"""Hands the learner's parameters on to the actors of one host."""

import threading
import time

from absl import logging

from actors import parameters
from agents.types import Params

# An answer of the learner does for questions that come so soon after it. Small
# beside the time of an unroll, it bounds what one relay asks of the learner.
_FRESH_S = 0.1


class ParameterRelay:
  """A `ParameterSource` that stands between another one and many clients.

  However many they are, each version is fetched once. While the source fails,
  clients go on with what it gave last.
  """

  def __init__(self, source: parameters.ParameterSource) -> None:
    self._source = source
    self._lock = threading.Lock()
    self._latest: tuple[int, int, Params] | None = None
    self._asked_at = float('-inf')

  def get_parameters(
    self, unless_version: int
  ) -> tuple[int, int, Params] | None:
    """Answers as the learner would, `_FRESH_S` ago; safe in any thread.

    Raises:
      TimeoutError, RuntimeError: the source has failed, and had given nothing.
    """
    with self._lock:
      if time.monotonic() - self._asked_at > _FRESH_S:
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
