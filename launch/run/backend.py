"""The interface of all that runs can be submitted to, by `--launcher`."""

from typing import NamedTuple, Protocol

from bmg.configs import schema
from bmg.launch.run import files

# The backend does not answer.
UNKNOWN = 'unknown'


class Status(NamedTuple):
  """State of a run, as its backend sees it."""

  # WAITING, RUNNING or one of the FINAL_STATES of `files`; or UNKNOWN.
  state: str
  # The reason, in one line, where there is something to add.
  detail: str = ''

  @property
  def is_over(self) -> bool:
    """Whether nothing of the run is left, nor will be by itself."""
    return self.state in files.FINAL_STATES


class Backend(Protocol):
  """Submits, watches and stops runs; finds them by their folders."""

  # How often the state of a run may be asked for, in seconds.
  period_s: float

  def check(self, config: schema.Config, workdir: str) -> None:
    """Checks that such a run can be submitted; writes nothing.

    Raises:
      ConfigError: a field is not supported.
    """

  def describe(self, config: schema.Config, workdir: str) -> str:
    """Returns what `submit` would start, for `--dry_run`."""

  def submit(self, config: schema.Config, workdir: str, lock_fd: int) -> int:
    """Submits a run; waits for its end only where it is this process.

    Args:
      config: the run's configuration, as saved in the run's folder.
      workdir: the run's folder.
      lock_fd: file descriptor of the folder's lock.

    Returns:
      The exit status: 0 where the run was submitted; where it was this process,
      0 if it finished or was stopped in order.

    Raises:
      UsageError: the run is under way already, or is refused.
    """

  def state(self, workdir: str) -> Status:
    """Returns the state of a run; `UNKNOWN` where the backend is silent."""

  def stop(self, workdir: str) -> None:
    """Asks a run that is not over to save and end; does not wait for it.

    Raises:
      CommandError, UsageError: it cannot be asked.
    """
