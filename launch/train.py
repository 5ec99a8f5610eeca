"""Trains an agent: starts a new run, or resumes the one in --workdir.

Usage: python -m launch.train --config=configs/atari_local.py
         --config.env.game=breakout --workdir=runs/breakout
"""

from collections.abc import Sequence

from absl import flags

from launch import cli, local, run_folder, status

_LAUNCHERS = ('local', 'threads')


def main(argv: Sequence[str]) -> int:
  """Runs one training to its end, or until it is stopped.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status: 0 where the run finished or was stopped in order.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
  """
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'workdir',
    None,
    'Folder of the run, resumed if it holds one. '
    'Default: runs/<game>-<mode>-<seed>.',
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    'launcher',
    'local',
    _LAUNCHERS,
    'local: one supervised process per node. threads: all nodes in this '
    'process, for debugging.',
    flag_values=flag_values,
  )
  config = cli.parse_with_config(flag_values, argv)
  if ':' in config.meta.matching:
    # Imports JAX, which the launcher of processes can else do without.
    from learner import matching

    matching.get_function(config.meta.matching)
  workdir = flag_values['workdir'].value or run_folder.default_workdir(config)
  try:
    with local.lock(workdir) as lock:
      changes = run_folder.prepare(config, workdir, argv)
      with status.Display(config, workdir) as display:
        for change in changes:
          display.say(f'Changed since the last start: {change}')
        if flag_values['launcher'].value == 'threads':
          # Imports Launchpad, which the launcher of processes can do without.
          from launch import threads

          return threads.run(config, workdir, display)
        return local.LocalRun(config, workdir, display, lock.fileno()).run()
  except local.LaunchError as error:
    raise cli.UsageError(str(error)) from error


def entry() -> None:
  """The console script."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
