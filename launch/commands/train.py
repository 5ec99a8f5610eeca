"""Trains an agent: starts a new run, or resumes the one in --workdir.

Usage: python -m bmg train --config=configs/atari_local.py
         --config.env.game=breakout --workdir=runs/breakout
"""

from collections.abc import Sequence

from absl import flags

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.kubernetes import launcher as kubernetes
from bmg.launch.kubernetes import manifests
from bmg.launch.local import launcher as local
from bmg.launch.run import display as display_lib
from bmg.launch.run import folder, topology
from bmg.launch.slurm import launcher as slurm

_LAUNCHERS = ('local', 'threads', 'slurm', 'kubernetes')


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
  if launcher == 'kubernetes':
    manifests.check(config)
  checks.check(
    launcher != 'threads' or config.learner.num_hosts == 1,
    'learner.num_hosts',
    config.learner.num_hosts,
    'must be 1 with --launcher=threads: hosts are processes',
  )
  if flag_values['dry_run'].value:
    return _dry_run(config, workdir, launcher)
  try:
    with local.lock(workdir) as lock:
      changes = folder.prepare(config, workdir, argv)
      if launcher in ('slurm', 'kubernetes'):
        for change in changes:
          print(f'Changed since the last start: {change}')
        return _submit(config, workdir, launcher, dry_run=False)
      with display_lib.Display(config, workdir) as display:
        for change in changes:
          display.say(f'Changed since the last start: {change}')
        if launcher == 'threads':
          # Imports Launchpad, which the launcher of processes can do without.
          from bmg.launch.local import threads

          return threads.run(config, workdir, display)
        return local.LocalRun(config, workdir, display, lock.fileno()).run()
  except local.LaunchError as error:
    raise cli.UsageError(str(error)) from error


def _submit(
  config: schema.Config, workdir: str, launcher: str, dry_run: bool
) -> int:
  if launcher == 'slurm':
    return slurm.launch(config, workdir, dry_run, print)
  return kubernetes.launch(config, workdir, dry_run, print)


def _dry_run(config: schema.Config, workdir: str, launcher: str) -> int:
  """Says what would be started, and where."""
  if launcher in ('slurm', 'kubernetes'):
    return _submit(config, workdir, launcher, dry_run=True)
  values = schema.to_dict(config)
  print(
    f'Run in {workdir}: {len(topology.nodes(values))} nodes on this machine'
  )
  for group in topology.GROUPS:
    count = topology.num_nodes(values, group)
    if count:
      print(f'  {count} x python -m bmg.launch.program --group={group}')
  return 0


def entry() -> None:
  """The command `bmg train`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
