"""Fields of saved configurations by path, as `meta.mode`."""

from collections.abc import Collection, Mapping
from typing import Any

# What changes how a run is carried out, and not what is learned or measured.
MACHINERY = (
  'actors.num_actors',
  'actors.env_groups',
  'actors.env_threads',
  'actors.inference',
  'actors.inference_wait_ms',
  'actors.insert_timeout_s',
  'actors.parameter_timeout_s',
  'replay.num_servers',
  'replay.read_timeout_s',
  'replay.checkpoint',
  'learner',
  'launch',
  'cluster',
  'slurm',
  'kubernetes',
)


def lies_in(field: str, names: Collection[str]) -> bool:
  """Whether `field` is one of `names`, or in a group that is."""
  return any(field == name or field.startswith(f'{name}.') for name in names)


def flatten(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns the fields of nested groups by path, in plain JSON types."""
  flat: dict[str, Any] = {}
  for name, value in values.items():
    path = f'{prefix}.{name}' if prefix else name
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
