"""Checks that tell the user which field is wrong, and how to mend it."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MAX_LISTED = 12


class ConfigError(ValueError):
  """A value the user must change: names the field, the value and the cure."""

  def __init__(
    self,
    field: str,
    value: Any,
    problem: str,
    allowed: Sequence[str] = (),
    given: str | None = None,
  ):
    """Composes the message.

    Args:
      field: path of the field, such as `env.game`.
      value: what it was set to.
      problem: what is wrong with that.
      allowed: what may be given instead.
      given: what to find the nearest allowed one to; by default the value.
    """
    message = f'config.{field} = {value!r}: {problem}'
    if 0 < len(allowed) <= _MAX_LISTED:
      message += f'; allowed: {", ".join(allowed)}'
    given = str(value) if given is None else given
    nearest = difflib.get_close_matches(given, allowed, n=1, cutoff=0.5)
    if nearest:
      message += f'. Did you mean {nearest[0]!r}?'
    super().__init__(message)
    self.field = field


def check(condition: bool, field: str, value: Any, problem: str) -> None:
  """Raises a `ConfigError` unless `condition` holds."""
  if not condition:
    raise ConfigError(field, value, problem)


def check_choice(field: str, value: str, allowed: Sequence[str]) -> None:
  """Checks that `value` is one of `allowed`."""
  if value not in allowed:
    raise ConfigError(field, value, 'is not a known choice', allowed)


class GroupChecker:
  """Checks several fields of one configuration group alike."""

  def __init__(self, name: str, group: Any):
    self._name = name
    self._group = group

  def _each(self, fields: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for field in fields:
      yield f'{self._name}.{field}', getattr(self._group, field)

  def at_least(self, bound: float, *fields: str) -> None:
    for field, value in self._each(fields):
      check(value >= bound, field, value, f'must be at least {bound}')

  def positive(self, *fields: str) -> None:
    for field, value in self._each(fields):
      check(value > 0, field, value, 'must be positive')

  def in_unit_interval(self, *fields: str) -> None:
    """Checks for [0, 1): decay rates and probabilities of a repeat."""
    for field, value in self._each(fields):
      check(0 <= value < 1, field, value, 'must lie in [0, 1)')


def build(cls: type, values: Mapping[str, Any], prefix: str = '') -> Any:
  """Builds the dataclass `cls` from `values`, checking names and types.

  Args:
    cls: a dataclass whose fields are int, float, bool, str, tuples of one of
      these, or dataclasses.
    values: its fields by name, nested likewise. Missing ones take the default.
    prefix: the path of `cls` in the whole configuration, for messages.

  Raises:
    ConfigError: a field is unknown, missing or of the wrong type.
  """
  hints = typing.get_type_hints(cls)
  kwargs = {}
  for name, value in values.items():
    if name not in hints:
      raise ConfigError(
        prefix + name, value, 'is not a known field', tuple(hints), given=name
      )
    kwargs[name] = _convert(hints[name], value, prefix + name)
  for spec in dataclasses.fields(cls):
    required = (
      spec.default is dataclasses.MISSING
      and spec.default_factory is dataclasses.MISSING
    )
    if required and spec.name not in kwargs:
      raise ConfigError(prefix + spec.name, None, 'is missing')
  return cls(**kwargs)


def _convert(expected: Any, value: Any, field: str) -> Any:
  """Converts one value to its declared type, or says why it cannot."""
  if dataclasses.is_dataclass(expected):
    if not isinstance(value, Mapping):
      raise ConfigError(field, value, 'is a group of fields, not one value')
    return build(typing.cast(type, expected), value, prefix=f'{field}.')
  if typing.get_origin(expected) is tuple:
    if not isinstance(value, list | tuple):
      raise ConfigError(field, value, 'must be a tuple')
    element = typing.get_args(expected)[0]
    return tuple(_convert(element, item, field) for item in value)
  if expected is float and type(value) in (int, float):
    check(math.isfinite(value), field, value, 'must be finite')
    return float(value)
  if type(value) is expected:
    return value
  raise ConfigError(
    field,
    value,
    f'must be of type {expected.__name__}, not {type(value).__name__}',
  )
