"""Watches a Reverb server: is it there, and how full are its tables?"""

import threading
import time
from collections.abc import Mapping

import reverb
from absl import logging

_PERIOD_S = 1.0
_DEADLINE_S = 3
_JOIN_S = 0.3
_REPORT_PERIOD_S = 10.0


class ServerMonitor:
  """Asks a Reverb server for its table sizes once a second, in a thread.

  So nobody else has to wait for a server that may be dead, and its death and
  return are in the log.
  """

  def __init__(self, address: str, names: Mapping[str, str]):
    """Starts watching.

    Args:
      address: host:port of the server.
      names: what it calls its tables, by table.
    """
    self.address = address
    self._names = names
    self._sizes = dict.fromkeys(names, -1)
    self._closed = threading.Event()
    self._last_answer = time.monotonic()
    self._num_answers = 0
    self._thread = threading.Thread(
      target=self._watch, name='replay-monitor', daemon=True
    )
    self._thread.start()

  @property
  def sizes(self) -> dict[str, int]:
    """Unrolls in each table at the last answer.

    -1 before the first one, and of tables that the server does not have.
    """
    return dict(self._sizes)

  @property
  def num_answers(self) -> int:
    """Answers so far: tells a new answer from an old one."""
    return self._num_answers

  @property
  def silence_s(self) -> float:
    """Seconds since the last answer."""
    return time.monotonic() - self._last_answer

  def close(self) -> None:
    """Ends the watch; gives up waiting for it after a moment."""
    self._closed.set()
    self._thread.join(_JOIN_S)

  def _watch(self) -> None:
    reported = 0.0
    while not self._closed.is_set():
      try:
        # A new client each time: where the server's machine vanished without
        # closing its connections, an old client never recovers. It costs less
        # than the question itself.
        info = reverb.Client(self.address).server_info(timeout=_DEADLINE_S)
      except (reverb.ReverbError, RuntimeError):
        if self.silence_s - reported >= _REPORT_PERIOD_S:
          reported = self.silence_s
          logging.warning(
            'Reverb server %s has not answered for %.0f s.',
            self.address,
            reported,
          )
      else:
        if reported:
          logging.info('Reverb server %s answers.', self.address)
        reported = 0.0
        self._sizes = {
          table: info[name].current_size if name in info else -1
          for table, name in self._names.items()
        }
        self._num_answers += 1
        self._last_answer = time.monotonic()
      self._closed.wait(_PERIOD_S)
