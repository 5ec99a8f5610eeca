"""Stops a run, wherever it is: `python -m bmg stop --workdir=...`.

It is stopped in order: the learner saves its state, and the same command that
started the run goes on with it.
"""

import os
import signal
import time
from collections.abc import Sequence

from absl import flags

from bmg.launch import cli
from bmg.launch.run import files, slurm_jobs, subprocesses

_POLL_S = 0.5


def main(argv: Sequence[str]) -> int:
  """Asks a run to stop and waits until it has; returns the exit status.

  Raises:
    UsageError: there is no such run, or it cannot be reached from here.
  """
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'workdir', None, 'Folder of the run.', flag_values=flag_values
  )
  flags.DEFINE_float(
    'timeout_s',
    300.0,
    'How long to wait until the run has stopped.',
    0.0,
    flag_values=flag_values,
  )
  cli.parse(flag_values, argv)
  workdir = flag_values['workdir'].value
  if not workdir or not files.config(workdir).exists():
    raise cli.UsageError(f'--workdir={workdir}: is not the folder of a run')
  files.write_json(files.stop_request(workdir), {'time': time.time()})
  jobs = files.read_json(files.jobs(workdir), {})
  try:
    if jobs and slurm_jobs.state(jobs['core_job']) is not None:
      for job in jobs.values():
        slurm_jobs.cancel(job)
    elif files.launch_state(workdir) == files.RUNNING:
      _stop_local(workdir)
    else:
      print(f'Not running: {workdir}')
      return 0
    timeout_s: float = flag_values['timeout_s'].value or 0.0
    return _await_end(workdir, jobs, timeout_s)
  except subprocesses.CommandError as error:
    raise cli.UsageError(str(error)) from error


def _stop_local(workdir: str) -> None:
  pid = files.lock_owner(workdir)
  try:
    os.kill(int(pid), signal.SIGTERM)
  except (ValueError, ProcessLookupError, PermissionError) as error:
    raise cli.UsageError(
      f'--workdir={workdir}: its launcher, pid {pid or "unknown"}, is not on '
      f'this machine or not yours: {error}'
    ) from error


def _await_end(workdir: str, jobs: dict[str, str], timeout_s: float) -> int:
  until = time.monotonic() + timeout_s
  while time.monotonic() < until:
    # In this order, or a launch that ends in between would seem to be lost.
    alive = [job for job in jobs.values() if slurm_jobs.state(job)]
    if files.launch_state(workdir) != files.RUNNING:
      if not alive:
        print(f'Stopped: {workdir}')
        return 0
    elif jobs and not alive:
      files.end_launch(workdir, files.FAILED)
      print(
        f"Killed before all was saved: {workdir}. Slurm's KillWait gives a job "
        'too little time, or its node was lost.'
      )
      return 1
    time.sleep(_POLL_S)
  print(f'Still stopping after {timeout_s:g} s: {workdir}')
  return 1


def entry() -> None:
  """The command `bmg stop`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
