"""How numbers are written in a report."""

from collections.abc import Iterable

import numpy as np

from bmg.evaluation.report import aggregate


def percent(value: float) -> str:
  """Writes 1.918 as 191.8 %; a dash for NaN."""
  return '-' if np.isnan(value) else f'{100.0 * value:,.1f} %'


def interval(estimate: aggregate.Estimate) -> str:
  """Writes a 95 % interval in percent; nothing if there is none."""
  if np.isnan(estimate.low):
    return ''
  return f'{100.0 * estimate.low:,.1f} to {100.0 * estimate.high:,.1f}'


def score(value: float) -> str:
  """Writes a raw score; a dash for NaN."""
  if np.isnan(value):
    return '-'
  return f'{value:,.0f}' if abs(value) >= 1000.0 else f'{value:,.1f}'


def span(values: Iterable[int]) -> str:
  """Writes 3, or 1 to 3."""
  low, high = min(found := list(values)), max(found)
  return str(low) if low == high else f'{low} to {high}'


def plural(number: int, noun: str) -> str:
  """Writes 1 game, 2 games."""
  return f'{number} {noun}' + ('' if number == 1 else 's')


def unbroken(words: str) -> str:
  """Keeps words on one line."""
  return words.replace(' ', '\N{NO-BREAK SPACE}')
