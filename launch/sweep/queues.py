"""What the scheduler of a cluster knows about the jobs of runs."""

import getpass
import subprocess
import time
from typing import NamedTuple, Protocol

from launch import run_files

_COMMAND_TIMEOUT_S = 60.0


class Look(NamedTuple):
  """What was seen of one run's jobs."""

  # Whether the job that is the run is there, waiting or running; whether any.
  core: bool
  any: bool
  # When, in seconds since the epoch.
  time: float


class Queue(Protocol):
  """Looks at the jobs of all runs at once, and not too often."""

  def look(self, workdir: str) -> Look:
    """Returns what was seen last of the jobs of the run in `workdir`."""

  def clear(self, workdir: str) -> None:
    """Has whatever is left of the run's jobs cancelled."""


class SlurmQueue:
  """Asks squeue."""

  def __init__(self, period_s: float = 15.0) -> None:
    self._period_s = period_s
    self._tried_at = 0.0
    self._seen_at = 0.0
    # None until Slurm has answered once.
    self._jobs: frozenset[str] | None = None

  def look(self, workdir: str) -> Look:
    self._refresh()
    core, others = self._jobs_of(workdir)
    if self._jobs is None:
      return Look(bool(core), bool(core or others), self._seen_at)
    return Look(
      core in self._jobs,
      core in self._jobs or others in self._jobs,
      self._seen_at,
    )

  def clear(self, workdir: str) -> None:
    for job in self._jobs_of(workdir):
      if job and job in (self._jobs or ()):
        _call('scancel', '--quiet', job)

  def _jobs_of(self, workdir: str) -> tuple[str, str]:
    """Returns the numbers of core job and actors' array; '' for none."""
    jobs = run_files.read_json(run_files.jobs(workdir), {})
    return str(jobs.get('core_job', '')), str(jobs.get('actor_job', ''))

  def _refresh(self) -> None:
    now = time.time()
    if now - self._tried_at < self._period_s:
      return
    self._tried_at = now
    # The number of an array stands for all of its tasks.
    answer = _call('squeue', '-h', '-u', getpass.getuser(), '-o', '%F')
    if answer is not None:
      self._jobs, self._seen_at = frozenset(answer.split()), now


def _call(*command: str) -> str | None:
  """Returns what the command prints; None where Slurm does not answer now."""
  try:
    return subprocess.run(
      command,
      check=True,
      capture_output=True,
      text=True,
      timeout=_COMMAND_TIMEOUT_S,
    ).stdout
  except (OSError, subprocess.SubprocessError):
    return None


class NoQueue:
  """Believes in the run's files alone.

  Kubernetes by itself starts again what it has lost, so that a run that has not
  said that it is over is not.
  """

  def look(self, workdir: str) -> Look:
    return Look(run_files.launch(workdir).exists(), False, 0.0)

  def clear(self, workdir: str) -> None:
    pass
