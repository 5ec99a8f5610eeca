"""A configuration, or the whole schema, as text that people read."""

import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from bmg.configs.schema import checks, comments, fields, resume

_WIDTH = 80


def describe_values(config: Any, defaults: Any) -> str:
  """Lists the value of every field.

  Args:
    config: the configuration.
    defaults: one of the same class; a star marks where `config` differs.
  """
  default_of = {
    fields.join(path, name): value
    for path, section in fields.sections(defaults)
    for name, value in vars(section).items()
  }

  def describe(field: str, spec: dataclasses.Field[Any], value: Any) -> str:
    del spec
    default = default_of[field]
    if value == default:
      return f'  {field} = {value!r}'
    return f'* {field} = {value!r}  (default: {default!r})'

  return _list(config, describe)


def describe_fields(defaults: Any) -> str:
  """Lists every field as it is overridden, with its type and its default.

  Args:
    defaults: a configuration of defaults alone.
  """

  def describe(field: str, spec: dataclasses.Field[Any], value: Any) -> str:
    kind = _name_type(spec.type)
    mark = '!' if fields.kind(field) is resume.Kind.FIXED else ' '
    return f'{mark} --config.{field}: {kind} = {value!r}'

  return _list(defaults, describe)


def count_differences(config: Any, defaults: Any) -> int:
  """Returns in how many fields two configurations of one class differ."""
  pairs = zip(_flatten(config), _flatten(defaults), strict=True)
  return sum(one != other for one, other in pairs)


def _flatten(config: Any) -> Iterator[tuple[str, Any]]:
  yield from fields.flatten(dataclasses.asdict(config)).items()


def _list(
  config: Any, describe: Callable[[str, dataclasses.Field[Any], Any], str]
) -> str:
  """Lists all fields by section, with what the source says about them."""
  lines: list[str] = []
  explained: set[type] = set()
  about: dict[str, str] = {}
  for path, section in fields.sections(config):
    if path:
      lines += ['', f'[{path}]', *_wrap(about.get(path, ''), '  ')]
      # Some sections are of the same class.
      if type(section) not in explained:
        explained.add(type(section))
        for paragraph in (inspect.getdoc(type(section)) or '').split('\n\n'):
          lines += _wrap(paragraph, '  ')
        lines.append('')
    comment_on = comments.above_fields(type(section))
    for spec in dataclasses.fields(section):
      field = fields.join(path, spec.name)
      value = getattr(section, spec.name)
      comment = _with_choices(comment_on.get(spec.name, ''), spec)
      if dataclasses.is_dataclass(value):
        about[field] = comment
        continue
      lines += _wrap(comment, '  # ')
      lines.append(describe(field, spec, value))
  return '\n'.join(lines)


def _name_type(declared: Any) -> str:
  if typing.get_origin(declared) is Annotated:
    declared, *_ = typing.get_args(declared)
  return declared.__name__ if type(declared) is type else str(declared)


def _with_choices(comment: str, spec: dataclasses.Field[Any]) -> str:
  """Adds the values that a field may have, unless the comment has them all."""
  for constraint in checks.constraints(spec):
    if not all(repr(value) in comment for value in constraint.allowed):
      comment += f' One of: {", ".join(map(repr, constraint.allowed))}.'
  return comment.strip()


def _wrap(text: str, indent: str) -> list[str]:
  return textwrap.wrap(
    text,
    _WIDTH,
    initial_indent=indent,
    subsequent_indent=indent,
    break_long_words=False,
    break_on_hyphens=False,
  )
