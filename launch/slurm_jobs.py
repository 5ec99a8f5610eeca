"""The jobs of Slurm, by its own commands. Standard library only."""

import pathlib
import subprocess
from collections.abc import Sequence

_COMMAND_TIMEOUT_S = 60.0
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


class SlurmError(RuntimeError):
  """Slurm does not answer, or refuses; says what it said."""


def submit(script: pathlib.Path) -> str:
  """Submits a batch script; returns the number of its job.

  Raises:
    SlurmError: Slurm does not answer, or refuses.
  """
  return _call(['sbatch', '--parsable', str(script)]).split(';')[0]


def state(job: str) -> str | None:
  """Returns the state of a job or array, as RUNNING; None if it is over.

  Raises:
    SlurmError: Slurm does not answer.
  """
  try:
    answer = _call(['squeue', '-h', '-t', 'all', '-j', job, '-o', '%T'])
  except SlurmError as error:
    # What Slurm has forgotten is over.
    if 'Invalid job id' in str(error):
      return None
    raise
  states = answer.split()
  return next((state for state in states if state in _ALIVE), None)


def cancel(job: str) -> None:
  """Has Slurm stop a job or array: SIGTERM, and SIGKILL after its KillWait.

  Raises:
    SlurmError: Slurm does not answer.
  """
  _call(['scancel', '--quiet', job])


def requeue(job: str) -> None:
  """Has Slurm start a job over, under the same number.

  Raises:
    SlurmError: Slurm does not answer, or does not want to.
  """
  _call(['scontrol', 'requeue', job])


def _call(command: Sequence[str]) -> str:
  """Runs one of Slurm's commands; returns what it prints.

  Raises:
    SlurmError: it fails, or takes too long.
  """
  try:
    return subprocess.run(
      command,
      check=True,
      capture_output=True,
      text=True,
      timeout=_COMMAND_TIMEOUT_S,
    ).stdout.strip()
  except FileNotFoundError as error:
    raise SlurmError(
      f'there is no command {command[0]!r} on this machine'
    ) from error
  except subprocess.TimeoutExpired as error:
    raise SlurmError(
      f'{command[0]} has not answered in {_COMMAND_TIMEOUT_S:g} s'
    ) from error
  except subprocess.CalledProcessError as error:
    said = ' '.join(error.stderr.split()) or f'exit status {error.returncode}'
    raise SlurmError(f'{command[0]}: {said}') from error
