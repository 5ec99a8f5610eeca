"""Signs of life, and an ear for a stop, while compilation gives none."""

import threading
import time
from collections.abc import Callable

_SLICE_S = 0.2


def call(
  function: Callable[[], None],
  stop: threading.Event,
  heartbeat: Callable[[], None],
  limit_s: float,
) -> bool:
  """Calls `function` in a thread, and waits for it.

  Args:
    function: cannot be interrupted. If `stop` is set first, its thread is left
      behind, for the end of the process to end it.
    stop: ends the wait.
    heartbeat: called all along.
    limit_s: after so long it is silent, so that a function that hangs is
      noticed.

  Returns:
    Whether it has come to its end.

  Raises:
    Exception: whatever `function` raises.
  """
  failures: list[Exception] = []

  def run() -> None:
    try:
      function()
    except Exception as error:
      failures.append(error)

  thread = threading.Thread(target=run, name=function.__name__, daemon=True)
  thread.start()
  deadline = time.monotonic() + limit_s
  while thread.is_alive():
    if stop.is_set():
      return False
    if time.monotonic() < deadline:
      heartbeat()
    thread.join(_SLICE_S)
  if failures:
    raise failures[0]
  return True
