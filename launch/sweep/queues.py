"""What the scheduler of a cluster knows about the jobs of runs."""

import contextlib
import getpass
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bmg.launch.kubernetes import dns, kubectl
from bmg.launch.run import files, slurm_jobs, subprocesses

_PERIOD_S = 15.0
_TIMEOUT_S = 60.0


class Look(NamedTuple):
  """What was seen of one run's jobs."""

  # Whether the job that is the run is there, waiting or running; whether any.
  core: bool
  any: bool
  # When, in seconds since the epoch.
  time: float


class Queue(Protocol):
  """Looks at the jobs of all runs at once, and not too often."""

  def check(self) -> None:
    """Raises `CommandError` where the scheduler cannot be reached."""

  def look(self, workdir: str) -> Look:
    """Returns what was seen last of the jobs of the run in `workdir`."""

  def clear(self, workdir: str) -> None:
    """Cancels whatever is left of the run's jobs, as the next look tells."""

  def stop_command(self, workdir: str) -> Sequence[str]:
    """Returns the command that asks the run to save and end."""


class _Snapshot:
  """Names of jobs that are there, from a command that lists them all."""

  def __init__(self, command: Sequence[str], period_s: float) -> None:
    self._command = command
    self._period_s = period_s
    self._tried_at = 0.0
    # None until the scheduler has answered once.
    self.lines: frozenset[str] | None = None
    self.time = 0.0

  def refresh(self) -> None:
    """Looks again, if it is time; what was seen stays where that fails."""
    if time.time() - self._tried_at >= self._period_s:
      try:
        self.take()
      except subprocesses.CommandError:
        return

  def take(self) -> None:
    """Looks again.

    Raises:
      CommandError: the scheduler does not answer.
    """
    self._tried_at = now = time.time()
    self.lines = frozenset(subprocesses.call(self._command, _TIMEOUT_S).split())
    self.time = now


class SlurmQueue:
  """Asks squeue."""

  def __init__(self, period_s: float = _PERIOD_S) -> None:
    command = slurm_jobs.list_command(getpass.getuser())
    self._snapshot = _Snapshot(command, period_s)

  def check(self) -> None:
    self._snapshot.take()

  def look(self, workdir: str) -> Look:
    self._snapshot.refresh()
    there = [self._is_there(job) for job in self._jobs(workdir)]
    return Look(there[0], any(there), self._snapshot.time)

  def clear(self, workdir: str) -> None:
    for job in self._jobs(workdir):
      if self._is_there(job):
        with contextlib.suppress(subprocesses.CommandError):
          slurm_jobs.cancel(job)

  def stop_command(self, workdir: str) -> Sequence[str]:
    # To cancel the jobs alone would look like a preemption.
    command = (
      sys.executable,
      '-m',
      'bmg.launch.commands.stop',
      '--timeout_s=0',
    )
    return (*command, f'--workdir={workdir}')

  def _jobs(self, workdir: str) -> tuple[str, str]:
    """Returns the numbers of core job and actors' array; '' for none."""
    jobs = files.read_json(files.jobs(workdir), {})
    return str(jobs.get('core_job', '')), str(jobs.get('actor_job', ''))

  def _is_there(self, job: str) -> bool:
    lines = self._snapshot.lines
    return bool(job) and (lines is None or job in lines)


class KubernetesQueue:
  """Asks kubectl for JobSets."""

  def __init__(self, namespace: str, period_s: float = _PERIOD_S) -> None:
    self._namespace = namespace
    self._snapshot = _Snapshot(kubectl.get_command(namespace), period_s)

  def check(self) -> None:
    self._snapshot.take()

  def look(self, workdir: str) -> Look:
    self._snapshot.refresh()
    # Those that are over have a state behind the slash.
    lines = self._snapshot.lines or ()
    there = f'{dns.run_name(workdir)}/' in lines
    return Look(there, there, self._snapshot.time)

  def clear(self, workdir: str) -> None:
    with contextlib.suppress(subprocesses.CommandError):
      subprocesses.call(self.stop_command(workdir), _TIMEOUT_S)

  def stop_command(self, workdir: str) -> Sequence[str]:
    name = dns.run_name(workdir)
    return kubectl.delete_command(self._namespace, name, '--wait=false')
