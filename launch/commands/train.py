"""Trains an agent: starts a new run, or resumes the one in --workdir.

Usage: python -m bmg train --config=configs/atari_local.py
         --config.env.game=breakout --workdir=runs/breakout
"""

from collections.abc import Sequence

from absl import flags

from bmg.launch import backends, cli
from bmg.launch.local import launcher as local
from bmg.launch.run import files, folder


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
  flags.DEFINE_string(
    'launcher',
    'local',
    'local: one supervised process per node. threads: all nodes in this '
    'process, for debugging. slurm, kubernetes: submits the run and returns.',
    flag_values=flag_values,
  )
  flags.DEFINE_boolean(
    'dry_run',
    False,
    'Only print what would be started or submitted.',
    flag_values=flag_values,
  )
  config = cli.parse_with_config(flag_values, argv)
  workdir = flag_values['workdir'].value or folder.default_workdir(config)
  launcher = str(flag_values['launcher'].value)
  backend = backends.get(launcher)
  backend.check(config, workdir)
  if flag_values['dry_run'].value:
    print(backend.describe(config, workdir))
    return 0
  try:
    with local.lock(workdir) as lock:
      changes = folder.prepare(config, workdir, argv)
      files.write_submission(workdir, launcher)
      for change in changes:
        print(f'Changed since the last start: {change}')
      return backend.submit(config, workdir, lock.fileno())
  except local.LaunchError as error:
    raise cli.UsageError(str(error)) from error


def entry() -> None:
  """The command `bmg train`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
