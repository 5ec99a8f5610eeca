"""The comments above the fields of a dataclass, which document them."""

import ast
import functools
import inspect
import sys
from collections.abc import Mapping


def above_fields(config_class: type) -> Mapping[str, str]:
  """Returns the comment above each field that has one, as one line."""
  return _of_module(config_class.__module__).get(config_class.__name__, {})


@functools.cache
def _of_module(name: str) -> Mapping[str, Mapping[str, str]]:
  """Returns the comments by class and field, in one pass over the source."""
  source = inspect.getsource(sys.modules[name])
  lines = source.splitlines()
  return {
    node.name: {
      item.target.id: comment
      for item in node.body
      if isinstance(item, ast.AnnAssign)
      and isinstance(item.target, ast.Name)
      and (comment := _comment_above(item.lineno, lines))
    }
    for node in ast.parse(source).body
    if isinstance(node, ast.ClassDef)
  }


def _comment_above(line_number: int, lines: list[str]) -> str:
  """Joins the lines of the comment that ends above a line, counted from 1."""
  first = last = line_number - 1
  while lines[first - 1].lstrip().startswith('#'):
    first -= 1
  return ' '.join(line.strip().lstrip('# ') for line in lines[first:last])
