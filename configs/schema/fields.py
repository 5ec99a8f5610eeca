"""Fields of the schema, and of saved configurations, by path: `meta.mode`."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from bmg.configs import schema
from bmg.configs.schema import resume


def sections(section: Any, path: str = '') -> Iterator[tuple[str, Any]]:
  """Yields a section and all those within it, by path, in their order."""
  yield path, section
  for spec in dataclasses.fields(section):
    value = getattr(section, spec.name)
    if dataclasses.is_dataclass(value):
      yield from sections(value, join(path, spec.name))


def join(path: str, name: str) -> str:
  """Returns the path of what `name` means in the section at `path`."""
  return f'{path}.{name}' if path else name


def kind(field: str) -> resume.Kind:
  """Returns whether a field, or a section, may change when a run is resumed.

  Args:
    field: path of it. Of one that this revision does not have, the section
      that it would lie in answers.
  """
  found = resume.Kind.LEARNING
  section: Any = schema.Config
  for name in field.split('.'):
    if not dataclasses.is_dataclass(section):
      break
    specs = {spec.name: spec for spec in dataclasses.fields(section)}
    if name not in specs:
      break
    found = specs[name].metadata.get(resume.KEY, found)
    section = specs[name].type
  return found


def may_change(field: str, old: Any, new: Any, at_most: resume.Kind) -> bool:
  """Whether a run, or a sweep, that has checkpoints can go on with `new`.

  Args:
    field: path of the field.
    old: its value so far; None where that revision did not have the field.
    new: its value from now on, likewise.
    at_most: the kind of field that may change.
  """
  return old is None or new is None or kind(field) <= at_most


def flatten(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns the fields of nested groups by path, in plain JSON types."""
  flat: dict[str, Any] = {}
  for name, value in values.items():
    path = join(prefix, name)
    if isinstance(value, Mapping):
      flat |= flatten(value, path)
    else:
      flat[path] = list(value) if isinstance(value, tuple) else value
  return flat


def get(values: Mapping[str, Any], field: str) -> Any:
  """Returns the value of a field; None if there is no such field."""
  value: Any = values
  for name in field.split('.'):
    if not isinstance(value, Mapping) or name not in value:
      return None
    value = value[name]
  return value
