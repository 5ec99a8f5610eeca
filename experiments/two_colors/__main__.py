"""Compares agents on two colors: `python -m bmg two-colors`.

Runs every agent of a study, each with all its seeds, and reports. The same
command again goes on where it was stopped, and runs nothing twice.
"""

import datetime
import pathlib
import time
from collections.abc import Sequence

from absl import flags

from bmg import errors
from bmg.configs.two_colors import schema
from bmg.experiments import command, devices
from bmg.experiments.two_colors import report, run
from bmg.launch import cli
from bmg.launch.local import launcher as local
from bmg.launch.run import files
from bmg.learner import checkpoints

_NAMES = (
  'table',
  'horizons',
  'lengths',
  'returns',
  'switching',
  'tuning',
)
STUDIES = cli.RecipeKind(
  tuple(f'two_colors/{name}.py' for name in _NAMES), schema.from_config_dict
)
DEFAULT_RECIPE = 'configs/two_colors/table.py'
_SHOW_PERIOD_S = 10.0


def main(argv: Sequence[str]) -> int:
  """Runs a study to its end, or until it is stopped.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: what is in the folder cannot be gone on from, or no more can be
      saved there.
  """
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'workdir',
    'runs/two_colors',
    'Folder of the study, resumed if it holds one.',
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    'only',
    [],
    'Agents to run, by name; all by default.',
    flag_values=flag_values,
  )
  argv = command.with_default_recipe(argv, DEFAULT_RECIPE)
  study = cli.parse_with_recipe(flag_values, argv, STUDIES)
  only: list[str] = flag_values['only'].value or []
  names = command.choose('agents', list(study.agents), only)
  workdir = str(flag_values['workdir'].value)
  devices.one_per_core()
  try:
    with local.lock(workdir):
      return _run(study, names, workdir)
  except local.LaunchError as error:
    raise cli.UsageError(str(error)) from error
  except checkpoints.SaveError as error:
    raise errors.FatalError(str(error)) from error
  except OSError as error:
    raise cli.UsageError(
      f'--workdir={workdir}: cannot be written to: {error.strerror}'
    ) from error


def _run(study: schema.Study, names: Sequence[str], workdir: str) -> int:
  """Runs the agents one after the other, then reports on all that is there."""
  stop = command.stop_on_signals()
  files.write_json(files.config(workdir), schema.to_dict(study))
  for name in names:
    agent_run = run.AgentRun(study, name, workdir)
    try:
      if not agent_run.run(stop.is_set, _Display().show):
        print(f'Stopped. The same command goes on with {name}.', flush=True)
        return 0
    finally:
      agent_run.close()
  found = [name for name in study.agents if _csv(workdir, name).exists()]
  report.write(study, {name: _csv(workdir, name) for name in found}, workdir)
  return 0


def _csv(workdir: str, name: str) -> pathlib.Path:
  return pathlib.Path(workdir, f'{name}.csv')


class _Display:
  """Prints a line of progress every few seconds, and the last one."""

  def __init__(self) -> None:
    self._last = time.monotonic()

  def show(self, progress: run.Progress) -> None:
    finished = progress.num_steps == progress.total_steps
    if not finished and time.monotonic() - self._last < _SHOW_PERIOD_S:
      return
    self._last = time.monotonic()
    left = datetime.timedelta(seconds=round(progress.seconds_left))
    values = '  '.join(
      f'{name} {value:.4g}' for name, value in progress.metrics.items()
    )
    print(
      f'{progress.name}: {progress.num_steps / 1e6:.3g}M of '
      f'{progress.total_steps / 1e6:.3g}M steps  '
      f'{progress.steps_per_second:.0f}/s per seed  '
      f'return {progress.total_return / 1e6:.3f}M  {values}  left {left}',
      flush=True,
    )


def entry() -> None:
  """The command `bmg two-colors`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
