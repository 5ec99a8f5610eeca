"""Shares and times for people, and output that may be closed."""

import math
import os
import sys
from collections.abc import Callable


def percent(value: float) -> str:
  """0.25 -> '25 %'."""
  return f'{100 * value:.0f} %'


def duration(seconds: float) -> str:
  """3723 -> '1h02m'."""
  if math.isinf(seconds):
    return '-'
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{seconds:02d}s'


def ignore_closed_output(write: Callable[[], None]) -> None:
  """A terminal that was closed must not end the program in disorder."""
  try:
    write()
  except OSError:
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 (lives to the end)
