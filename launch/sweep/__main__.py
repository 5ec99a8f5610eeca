"""Trains a grid of games x seeds; the same command again goes on.

Usage: python -m launch.sweep --games=atari57 --seeds=3
         --config=configs/atari_paper.py --workdir=runs/paper
       python -m launch.sweep --workdir=runs/paper --status
"""

import difflib
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from configs import schema
from launch import cli, commands, local
from launch.sweep import (
  cells,
  folder,
  launchers,
  machine,
  queues,
  scheduler,
  table,
)

_TRAIN_COMMAND = (sys.executable, '-m', 'launch.train')
_LAUNCHERS = ('local', 'slurm', 'kubernetes')
# The grid sets these for each cell.
_TAKEN_FIELDS = {'env.game': 'games', 'seed': 'seeds'}


def main(
  argv: Sequence[str], train_command: Sequence[str] = _TRAIN_COMMAND
) -> int:
  """Runs a sweep to its end, or until it is stopped.

  Args:
    argv: the command line, with the program's name first.
    train_command: starts each cell, for tests.

  Returns:
    The exit status: 0 where all cells are done or were stopped in order.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
  """
  flag_values = _define_flags()
  if _asks_for_status(argv):
    cli.parse(flag_values, argv)
    return _show_status(flag_values['workdir'].value)
  config = cli.parse_with_config(flag_values, argv)
  args: dict[str, Any] = {name: flag_values[name].value for name in flag_values}
  settings = _settings(config, flag_values['config'], args)
  workdir = args['workdir'] or _default_workdir(settings.recipe)
  if args['status']:
    return _show_status(workdir)
  grid = cells.make_cells(
    workdir,
    settings.games,
    settings.seeds,
    settings.launcher,
    [
      *train_command,
      f'--config={settings.recipe}',
      *(f'--config.{k}={_text(v)}' for k, v in settings.overrides.items()),
      f'--launcher={settings.launcher}',
    ],
  )
  changes = folder.check(workdir, settings)
  here = machine.look(os.environ)
  if settings.launcher == 'local':
    max_running = args['max_running'] or machine.max_running(config, here)
  else:
    max_running = args['max_running'] or len(grid)
  if args['dry_run']:
    return _dry_run(workdir, grid, max_running)
  queue = _queue(config, settings.launcher)
  try:
    with local.lock(workdir) as lock:
      _write(workdir, settings, argv)
      launcher: launchers.Launcher
      if queue is None:
        slots = machine.slots(config, here, max_running)
        launcher = launchers.LocalLauncher(
          config.num_frames, slots, lock.fileno()
        )
      else:
        launcher = launchers.ClusterLauncher(config.num_frames, queue)
      with table.Display(settings, workdir) as display:
        for change in changes:
          display.say(f'Changed since the last start: {change}')
        display.say(
          f'Sweep in {workdir}: {len(grid)} cells, up to {max_running} at a '
          'time'
        )
        return scheduler.Sweep(
          workdir,
          grid,
          config.num_frames,
          launcher,
          display,
          max_running=max_running,
          max_retries=args['max_retries'],
          retry_delay_s=args['retry_delay_s'],
          grace_s=config.launch.grace_s,
        ).run()
  except local.LaunchError as error:
    raise cli.UsageError(str(error)) from error


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'games',
    None,
    'atari57, atari5, or games such as pong,breakout.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'seeds',
    '1',
    '3 for seeds 1 to 3; 4,7 for these two; 4, for this one.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'workdir',
    None,
    'Folder of the sweep, resumed if it holds one; each run is in '
    '<game>-<seed> of it. Default: runs/sweep-<recipe>.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'launcher',
    'local',
    'local: runs on this machine. slurm, kubernetes: submits all of them.',
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'max_running',
    None,
    'Cells that run at a time. Default: what this machine takes; on a cluster, '
    'all.',
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'max_retries',
    3,
    'Starts of a cell after failures, before it is given up.',
    lower_bound=0,
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    'retry_delay_s',
    10.0,
    'Seconds before the first retry; doubled for each further one.',
    lower_bound=0.0,
    flag_values=flag_values,
  )
  flags.DEFINE_boolean(
    'dry_run',
    False,
    'Only print the cells and their commands.',
    flag_values=flag_values,
  )
  flags.DEFINE_boolean(
    'status',
    False,
    'Only print how far the sweep in --workdir has come.',
    flag_values=flag_values,
  )
  return flag_values


def _asks_for_status(argv: Sequence[str]) -> bool:
  """Whether it is about a sweep's folder alone, without a recipe."""
  names = {argument.lstrip('-').partition('=')[0] for argument in argv[1:]}
  return 'status' in names and 'config' not in names


def _settings(
  config: schema.Config, config_flag: Any, args: Mapping[str, Any]
) -> folder.Settings:
  overrides = config_flags.get_override_values(config_flag)
  for field, flag in _TAKEN_FIELDS.items():
    if field in overrides:
      raise cli.UsageError(
        f'--config.{field}={overrides[field]}: is set for each cell; use '
        f'--{flag}'
      )
  launcher = str(args['launcher'])
  if launcher not in _LAUNCHERS:
    nearest = difflib.get_close_matches(launcher, _LAUNCHERS, n=1)
    raise cli.UsageError(
      f'--launcher={launcher}: must be one of {", ".join(_LAUNCHERS)}'
      + (f'. Did you mean {nearest[0]!r}?' if nearest else '')
    )
  return folder.Settings(
    recipe=config_flags.get_config_filename(config_flag),
    overrides=overrides,
    launcher=launcher,
    games=cells.parse_games(args['games']),
    seeds=cells.parse_seeds(str(args['seeds'])),
    config=folder.common_config(config),
  )


def _default_workdir(recipe: str) -> str:
  return os.path.join('runs', f'sweep-{pathlib.Path(recipe).stem}')


def _text(value: Any) -> str:
  """Writes a value as it is written on a command line."""
  if isinstance(value, bool):
    return str(value).lower()
  return value if isinstance(value, str) else repr(value)


def _queue(config: schema.Config, launcher: str) -> queues.Queue | None:
  """Returns the queue of a cluster, which answers; None for this machine."""
  if launcher == 'local':
    return None
  queue: queues.Queue = (
    queues.SlurmQueue()
    if launcher == 'slurm'
    else queues.KubernetesQueue(config.kubernetes.namespace)
  )
  try:
    queue.check()
  except commands.CommandError as error:
    raise cli.UsageError(f'--launcher={launcher}: {error}') from error
  return queue


def _write(
  workdir: str, settings: folder.Settings, argv: Sequence[str]
) -> None:
  try:
    folder.write(workdir, settings, argv)
  except OSError as error:
    raise cli.UsageError(
      f'--workdir={workdir}: cannot be written to: {error.strerror}'
    ) from error


def _dry_run(workdir: str, grid: Sequence[cells.Cell], max_running: int) -> int:
  """Prints a shell script that does by hand what the sweep would do."""
  print(f'# {len(grid)} cells, up to {max_running} at a time')
  for status in cells.load(workdir, grid):
    print(f'# {status.cell}: {status.state}')
    print(shlex.join(status.cell.command))
  return 0


def _show_status(workdir: str | None) -> int:
  """Prints the table of the sweep in the folder, which may be running."""
  if not workdir:
    raise cli.UsageError('--workdir is missing: the folder of a sweep')
  settings = folder.read(workdir)
  grid = cells.make_cells(
    workdir, settings.games, settings.seeds, settings.launcher
  )
  statuses = cells.load(workdir, grid)
  display = table.Display(settings, workdir)
  if not folder.in_use(workdir):
    display.say(f'No sweep is running in {workdir}.')
    for status in statuses:
      # A sweep that was killed could not say that its cells have stopped.
      if settings.launcher == 'local' and status.state in cells.ACTIVE:
        status.state = cells.STOPPED
  display.show(statuses)
  return 0


def entry() -> None:
  """The console script."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
