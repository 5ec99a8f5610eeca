"""Signs of life while something runs that gives none: compilation."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

_PERIOD_S = 1.0


@contextlib.contextmanager
def kept_up(heartbeat: Callable[[], None], limit_s: float) -> Iterator[None]:
  """Calls `heartbeat` from a thread while the body runs.

  Args:
    heartbeat: may be called from any thread.
    limit_s: after so long it is silent, so that a body that hangs is noticed.
  """
  done = threading.Event()
  deadline = time.monotonic() + limit_s

  def beat() -> None:
    while not done.wait(_PERIOD_S) and time.monotonic() < deadline:
      heartbeat()

  thread = threading.Thread(target=beat, name='heartbeat', daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
