"""Which fields may change when a run is resumed: one answer for each.

A field has the answer of its declaration, else that of the section it lies in,
else `LEARNING`. `fields.kind` looks it up.
"""

import dataclasses
import enum
from typing import Any, TypeVar

KEY = 'resume'

T = TypeVar('T')


class Kind(enum.IntEnum):
  """What a field steers; the higher, the less it may change."""

  # How a run is carried out, and not what is learned or measured: may always
  # change.
  MACHINERY = 0
  # How long a run learns, and how it is measured: may change, in all cells of
  # a sweep alike.
  EXTENT = 1
  # How it learns: a run by itself may change that, but the cells of a sweep
  # are to be compared.
  LEARNING = 2
  # Who acts in what, and the shapes and meaning of the learner's state: a run
  # shares that with its checkpoints.
  FIXED = 3


def machinery(default: T) -> T:
  """Declares a field, or a section, of the kind `MACHINERY`."""
  return _field(default, Kind.MACHINERY)


def extent(default: T) -> T:
  """Declares a field, or a section, of the kind `EXTENT`."""
  return _field(default, Kind.EXTENT)


def fixed(default: T) -> T:
  """Declares a field, or a section, of the kind `FIXED`."""
  return _field(default, Kind.FIXED)


def _field(default: Any, kind: Kind) -> Any:
  return dataclasses.field(default=default, metadata={KEY: kind})
