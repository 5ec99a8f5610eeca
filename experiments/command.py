"""What the experiments' command lines have in common."""

import signal
import threading
from collections.abc import Sequence
from typing import Any

from bmg.configs.schema import checks


def with_default_recipe(argv: Sequence[str], path: str) -> list[str]:
  """Returns `argv` with --config=`path`, unless it names another recipe."""
  names = (word.lstrip('-').partition('=')[0] for word in argv[1:])
  if 'config' in names:
    return list(argv)
  # In front of its overrides.
  return [argv[0], f'--config={path}', *argv[1:]]


def choose(
  field: str, known: Sequence[str], wanted: Sequence[str]
) -> list[str]:
  """Returns the names that are wanted, in the order of the known ones.

  Args:
    field: of the configuration whose names these are.
    known: all of them.
    wanted: some of them; all if empty.

  Raises:
    ConfigError: one of them is not known.
  """
  for name in wanted:
    checks.check_choice(field, name, known)
  return [name for name in known if not wanted or name in wanted]


def stop_on_signals() -> threading.Event:
  """Returns an event that SIGINT and SIGTERM set; a second one kills."""
  stop = threading.Event()

  def handle(number: int, frame: Any) -> None:
    del frame
    stop.set()
    signal.signal(number, signal.SIG_DFL)
    print('Stopping', flush=True)

  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, handle)
  return stop
