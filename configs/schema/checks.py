"""Checks that tell the user which field is wrong, and how to mend it."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

_MAX_LISTED = 12
_NO_CHOICE = 'is not a known choice'


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
    raise ConfigError(field, value, _NO_CHOICE, allowed)


@dataclasses.dataclass(frozen=True)
class Constraint:
  """What a value must satisfy; of a tuple, each of its elements.

  Belongs to a field by its type: `Annotated[int, at_least(1)]`.
  """

  holds: Callable[[Any], bool]
  # What to say of a value for which it does not hold.
  problem: str
  # The values that it holds for, where they are few.
  allowed: tuple[str, ...] = ()


def at_least(bound: int) -> Constraint:
  """Makes the constraint of numbers that have a lower bound."""
  return Constraint(lambda value: value >= bound, f'must be at least {bound}')


def one_of(*allowed: str) -> Constraint:
  """Makes the constraint of a choice."""
  return Constraint(allowed.__contains__, _NO_CHOICE, allowed)


_POSITIVE = Constraint(lambda value: value > 0, 'must be positive')
_FRACTION = Constraint(lambda value: 0 <= value < 1, 'must lie in [0, 1)')

Count = Annotated[int, at_least(1)]
Natural = Annotated[int, at_least(0)]
NonNegative = Annotated[float, at_least(0)]
Positive = Annotated[float, _POSITIVE]
# Decay rates, and probabilities of a repeat.
Fraction = Annotated[float, _FRACTION]


def constraints(spec: dataclasses.Field[Any]) -> tuple[Constraint, ...]:
  """Returns what the type of a field asks of its value."""
  found = getattr(spec.type, '__metadata__', ())
  return tuple(each for each in found if isinstance(each, Constraint))


def check_fields(path: str, section: Any) -> None:
  """Checks each field of a section by the constraints of its type.

  Args:
    path: of the section in the whole configuration, for messages.
    section: a dataclass.

  Raises:
    ConfigError: a value does not satisfy them.
  """
  for spec in dataclasses.fields(section):
    value = getattr(section, spec.name)
    field = f'{path}.{spec.name}' if path else spec.name
    for constraint in constraints(spec):
      for each in value if isinstance(value, tuple) else (value,):
        if not constraint.holds(each):
          raise ConfigError(field, each, constraint.problem, constraint.allowed)


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
