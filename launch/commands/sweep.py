"""Trains a grid of variants x games x seeds; run again, it goes on.

Usage: python -m bmg sweep --games=atari57 --seeds=3
         --config=configs/atari_paper.py --workdir=runs/paper
       python -m bmg sweep --variants=none,bmg --games=atari5 --seeds=3
         --config=recipe.py --workdir=runs/study
       python -m bmg sweep --workdir=runs/paper --status
"""

import os
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch import backends, cli
from bmg.launch.local import launcher as local
from bmg.launch.run import subprocesses
from bmg.launch.sweep import (
  cells,
  folder,
  launchers,
  machine,
  queues,
  scheduler,
  table,
)

_TRAIN_COMMAND = (sys.executable, '-m', 'bmg.launch.commands.train')
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
  by_variant = _parse(flag_values, argv)
  args: dict[str, Any] = {name: flag_values[name].value for name in flag_values}
  settings = _settings(by_variant, flag_values['config'], args)
  configs = list(by_variant.values())
  workdir = args['workdir'] or _default_workdir(settings.recipe)
  if args['status']:
    return _show_status(workdir)
  grid = cells.make_cells(
    workdir,
    settings.games,
    settings.seeds,
    settings.launcher,
    settings.variants,
    lambda variant: [
      *train_command,
      f'--config={_with_variant(settings.recipe, variant)}',
      *(f'--config.{k}={_text(v)}' for k, v in settings.overrides.items()),
      f'--launcher={settings.launcher}',
    ],
  )
  changes = folder.check(workdir, settings)
  here = machine.look(os.environ)
  if settings.launcher == 'local':
    max_running = args['max_running'] or machine.max_running(configs, here)
  else:
    max_running = args['max_running'] or len(grid)
  if args['dry_run']:
    return _dry_run(workdir, grid, max_running)
  queue = _queue(configs[0], settings.launcher)
  try:
    with local.lock(workdir) as lock:
      _write(workdir, settings, argv)
      launcher: launchers.Launcher
      if queue is None:
        slots = machine.slots(configs, here, max_running)
        launcher = launchers.LocalLauncher(
          settings.num_frames, slots, lock.fileno()
        )
      else:
        launcher = launchers.ClusterLauncher(settings.num_frames, queue)
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
          settings.num_frames,
          launcher,
          display,
          max_running=max_running,
          max_retries=args['max_retries'],
          retry_delay_s=args['retry_delay_s'],
          grace_s=max(config.launch.grace_s for config in configs),
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
    'variants',
    None,
    'Variants of the recipe, such as none,bmg, or all of them. Default: the '
    'recipe as it is.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'workdir',
    None,
    'Folder of the sweep, resumed if it holds one; each run is in '
    '<game>-<seed> of it, or in <variant>/<game>-<seed>. Default: '
    'runs/sweep-<recipe>.',
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


def _parse(
  flag_values: flags.FlagValues, argv: Sequence[str]
) -> dict[str, schema.Config]:
  """Parses the command line, once for each variant, as its cells will.

  Args:
    flag_values: gets the values.
    argv: the command line.

  Returns:
    The checked configuration by variant.
  """
  names, _ = cli.take_flag(argv, 'variants')
  recipe, rest = cli.take_flag(argv, 'config')
  if names is None or recipe is None:
    return {'': cli.parse_with_config(flag_values, argv)}
  if ':' in recipe:
    raise cli.UsageError(
      f'--config={recipe}: names a variant, and so does --variants={names}; '
      'leave one of them out'
    )
  configs: dict[str, schema.Config] = {}
  for variant in cells.parse_variants(names, recipe):
    # Each recipe makes flags of its own, but all get the same values.
    values = _define_flags() if configs else flag_values
    config = f'--config={_with_variant(recipe, variant)}'
    try:
      configs[variant] = cli.parse_with_config(
        values, [rest[0], config, *rest[1:]]
      )
    except checks.ConfigError as error:
      raise cli.UsageError(f'variant {variant!r}: {error}') from error
  return configs


def _with_variant(recipe: str, variant: str) -> str:
  return f'{recipe}:{variant}' if variant else recipe


def _settings(
  by_variant: Mapping[str, schema.Config],
  config_flag: Any,
  args: Mapping[str, Any],
) -> folder.Settings:
  overrides = config_flags.get_override_values(config_flag)
  for field, flag in _TAKEN_FIELDS.items():
    if field in overrides:
      raise cli.UsageError(
        f'--config.{field}={overrides[field]}: is set for each cell; use '
        f'--{flag}'
      )
  launcher = str(args['launcher'])
  backends.get(launcher, _LAUNCHERS)
  recipe = config_flags.get_config_filename(config_flag)
  if args['variants'] is not None:
    recipe = recipe.partition(':')[0]
  return folder.Settings(
    recipe=recipe,
    overrides=overrides,
    launcher=launcher,
    games=cells.parse_games(args['games']),
    seeds=cells.parse_seeds(str(args['seeds'])),
    variants=tuple(by_variant),
    configs=folder.common_configs(by_variant),
  )


def _default_workdir(recipe: str) -> str:
  path, *variant = recipe.split(':', 1)
  name = '-'.join(['sweep', pathlib.Path(path).stem, *variant])
  return os.path.join('runs', name)


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
  except subprocesses.CommandError as error:
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
    workdir,
    settings.games,
    settings.seeds,
    settings.launcher,
    settings.variants,
  )
  statuses = cells.load(workdir, grid)
  display = table.Display(settings, workdir)
  if not local.in_use(workdir):
    display.say(f'No sweep is running in {workdir}.')
    for status in statuses:
      # A sweep that was killed could not say that its cells have stopped.
      if settings.launcher == 'local' and status.state in cells.ACTIVE:
        status.state = cells.STOPPED
  display.show(statuses)
  return 0


def entry() -> None:
  """The command `bmg sweep`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
