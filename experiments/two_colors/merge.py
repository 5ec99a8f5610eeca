"""Reports on seeds that were run in several folders, as on one study.

Usage: python -m bmg.experiments.two_colors.merge --workdirs=runs/a,runs/b
         [--out=runs/two_colors_merged]

Seeds have nothing to say to each other: machines can share them, each with its
own --config.seed and --workdir. An agent may be in some of the folders only.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from absl import flags

from bmg.configs.schema import fields
from bmg.configs.two_colors import schema
from bmg.experiments.two_colors import report, study_folder
from bmg.launch import cli


class Part(NamedTuple):
  """What one folder holds."""

  folder: str
  study: schema.Study
  # As from `report.per_seed`.
  seeds: pd.DataFrame


def main(argv: Sequence[str]) -> int:
  """Shows the table, and writes it and the figure of returns.

  Raises:
    UsageError: a folder holds no report, or two do not go together.
  """
  flag_values = flags.FlagValues()
  flags.DEFINE_list(
    'workdirs', [], 'Folders of studies, finished.', flag_values=flag_values
  )
  flags.DEFINE_string(
    'out',
    'runs/two_colors_merged',
    'Folder for the report.',
    flag_values=flag_values,
  )
  cli.parse(flag_values, argv)
  folders: list[str] = flag_values['workdirs'].value or []
  if len(folders) < 2:
    raise cli.UsageError(
      f'--workdirs={",".join(folders)}: must be two folders or more'
    )
  seeds = merge([_read(folder) for folder in folders])
  out = str(flag_values['out'].value)
  try:
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    report.write_returns(seeds, out)
  except OSError as error:
    raise cli.UsageError(
      f'--out={out}: cannot be written to: {error.strerror}'
    ) from error
  print(f'In {out}: seeds.csv, report.csv, returns.png')
  return 0


def merge(parts: Sequence[Part]) -> pd.DataFrame:
  """Returns the rows of all parts, each agent's seeds numbered anew.

  Raises:
    UsageError: an agent has other settings in another part, or the same seeds.
  """
  first: dict[str, Part] = {}
  rows = []
  origins: dict[tuple[str, int], str] = {}
  for part in parts:
    for name, seeds in part.seeds.groupby('agent'):
      _check_same_settings(str(name), first.setdefault(str(name), part), part)
      origin = (str(name), part.study.seed)
      if origin in origins:
        raise cli.UsageError(
          f'--workdirs: the seeds of {name} in {part.folder} are those in '
          f'{origins[origin]}: both have seed = {part.study.seed}'
        )
      origins[origin] = part.folder
      rows.append(seeds)
  result = pd.concat(rows).sort_values(['agent'], kind='stable')
  result['seed'] = result.groupby('agent').cumcount()
  return result.reset_index(drop=True)


def _check_same_settings(name: str, one: Part, other: Part) -> None:
  expected, found = (_settings(part.study, name) for part in (one, other))
  for field in sorted(expected.keys() | found.keys()):
    if expected.get(field) != found.get(field):
      raise cli.UsageError(
        f'--workdirs: {field} is {expected.get(field)} in {one.folder} and '
        f'{found.get(field)} in {other.folder}: no seeds of the same agent'
      )


def _settings(study: schema.Study, name: str) -> Mapping[str, Any]:
  values = schema.to_dict(study)
  return {
    'num_steps': study.num_steps,
    **fields.flatten(values['env'], 'env'),
    **fields.flatten(values['agents'][name], f'agents.{name}'),
  }


def _read(folder: str) -> Part:
  study = study_folder.read_study('--workdirs', folder)
  path = pathlib.Path(folder, report.SEEDS_FILE)
  try:
    seeds = pd.read_csv(path, converters={'context': str})
  except OSError as error:
    raise cli.UsageError(
      f'--workdirs={folder}: its study has no report yet ({path.name}): '
      f'{error.strerror}'
    ) from error
  others = sorted(set(seeds['agent']) - set(study.agents))
  if others:
    raise cli.UsageError(
      f'--workdirs={folder}: {path.name} has {others[0]}, which is no agent of '
      f'the study there; run it to its end for a new report'
    )
  return Part(folder, study, seeds)


if __name__ == '__main__':
  cli.run_main(main)
