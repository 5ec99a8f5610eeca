"""The jobs of Slurm, by its own commands. Standard library only."""

import pathlib
from collections.abc import Sequence

from bmg.launch.run import subprocesses

_TIMEOUT_S = 60.0
# States of a job that will run, runs, or is about to end.
_ALIVE = (
  'PENDING',
  'CONFIGURING',
  'RUNNING',
  'COMPLETING',
  'SUSPENDED',
  'REQUEUED',
  'REQUEUE_HOLD',
  'STAGE_OUT',
)


def submit(script: pathlib.Path) -> str:
  """Submits a batch script; returns the number of its job.

  Raises:
    CommandError: Slurm does not answer, or refuses.
  """
  return _call(['sbatch', '--parsable', str(script)]).split(';')[0]


def list_command(user: str) -> list[str]:
  """Returns the command that prints the numbers of all jobs of a user."""
  # The number of an array stands for all of its tasks.
  return ['squeue', '-h', '-u', user, '-o', '%F']


def state(job: str) -> str | None:
  """Returns the state of a job or array, as RUNNING; None if it is over.

  Raises:
    CommandError: Slurm does not answer.
  """
  try:
    answer = _call(['squeue', '-h', '-t', 'all', '-j', job, '-o', '%T'])
  except subprocesses.CommandError as error:
    # What Slurm has forgotten is over.
    if 'Invalid job id' in str(error):
      return None
    raise
  states = answer.split()
  return next((state for state in states if state in _ALIVE), None)


def cancel(job: str) -> None:
  """Has Slurm stop a job or array: SIGTERM, and SIGKILL after its KillWait.

  Raises:
    CommandError: Slurm does not answer.
  """
  _call(['scancel', '--quiet', job])


def requeue(job: str) -> None:
  """Has Slurm start a job over, under the same number.

  Raises:
    CommandError: Slurm does not answer, or does not want to.
  """
  _call(['scontrol', 'requeue', job])


def _call(command: Sequence[str]) -> str:
  return subprocesses.call(command, _TIMEOUT_S)
