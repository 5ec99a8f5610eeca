"""Reads what a study has left in its folder."""

import json

from bmg.configs.two_colors import schema
from bmg.launch import cli
from bmg.launch.run import files


def read_study(flag: str, workdir: str) -> schema.Study:
  """Returns the configuration of the study in `workdir`.

  Raises:
    UsageError: names the flag; the folder holds no study that can be read.
    ConfigError: the study has a field, or a value, that is not allowed.
  """
  path = files.config(workdir)
  try:
    return schema.from_config_dict(json.loads(path.read_text()))
  except OSError as error:
    raise cli.UsageError(
      f'{flag}={workdir}: holds no study: {error.strerror}'
    ) from error
  except json.JSONDecodeError as error:
    raise cli.UsageError(
      f'{flag}={workdir}: {path.name} is damaged: {error}'
    ) from error
