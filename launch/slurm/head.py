"""The core job of a run on Slurm: learner, replay and evaluator.

  python -m bmg.launch.slurm.head --workdir=...

The batch script that `launch.slurm.launcher` submits becomes this process. It
does on its nodes what the local launcher does on one machine. When the job's
time is nearly up, or Slurm takes the nodes away, the run stops in order and
saves; the same job, queued again, goes on with it.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.local import launcher as local
from bmg.launch.program import address_book
from bmg.launch.run import (
  display as display_lib,
)
from bmg.launch.run import (
  files,
  provenance,
  slurm_jobs,
  subprocesses,
)
from bmg.launch.slurm import launcher as slurm


def main(argv: Sequence[str]) -> int:
  """Runs one launch to its end, or to the job's; returns the exit status.

  Raises:
    UsageError: the folder holds no run, or another one uses it.
  """
  parser = argparse.ArgumentParser(prog='bmg.launch.slurm.head')
  parser.add_argument('--workdir', required=True)
  workdir = parser.parse_args(argv[1:]).workdir
  values = files.read_json(files.config(workdir))
  if values is None:
    raise cli.UsageError(f'--workdir={workdir}: holds no config.json')
  config = schema.from_config_dict(values)
  provenance.record_start(workdir, argv)
  try:
    with (
      local.lock(workdir) as lock,
      display_lib.Display(config, workdir) as display,
    ):
      run = local.LocalRun(
        config, workdir, display, lock.fileno(), placement=_placement(config)
      )
      result = run.run()
  except local.LaunchError as error:
    raise cli.UsageError(str(error)) from error
  _dismiss(workdir, run)
  return result


def _placement(config: schema.Config) -> local.Placement:
  spread = config.slurm.core_nodes > 1
  return local.Placement(
    nodes=slurm.core_nodes(config),
    prefix=(lambda node: slurm.step_prefix(config, node))
    if spread
    else lambda node: (),
    # A SIGTERM would have srun kill what it started.
    stop_signal=signal.SIGUSR2 if spread else signal.SIGTERM,
    host=address_book.AUTO_HOST,
    notice=signal.Signals[f'SIG{slurm.NOTICE}'],
    is_scheduled=True,
  )


def _dismiss(workdir: str, run: local.LocalRun) -> None:
  """Sees to what is left: a next job, or actors that are no longer needed.

  After a SIGTERM, whether there is a next job is for Slurm to know: it has
  preempted, requeued or cancelled this one. Actors find out by themselves.
  """
  jobs = files.read_json(files.jobs(workdir), {})
  try:
    if not run.was_interrupted:
      if 'actor_job' in jobs:
        slurm_jobs.cancel(jobs['actor_job'])
    elif run.was_noticed and 'SLURM_JOB_ID' in os.environ:
      slurm_jobs.requeue(os.environ['SLURM_JOB_ID'])
  except subprocesses.CommandError as error:
    print(error, file=sys.stderr)


if __name__ == '__main__':
  cli.run_main(main)
