"""What the commands of the benchmarks have in common."""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from launch import cli, run_files


def value(flag_values: flags.FlagValues, name: str) -> Any:
  """Returns the value of a flag."""
  return flag_values[name].value


def save(path: pathlib.Path, values: Mapping[str, Any]) -> None:
  """Writes the results to the file that --out names.

  Raises:
    UsageError: it cannot be written.
  """
  try:
    run_files.write_json(path, values)
  except OSError as error:
    raise cli.UsageError(
      f'--out={path}: cannot be written: {error.strerror}'
    ) from error
