"""Stops a run, wherever it is: `python -m bmg stop --workdir=...`.

It is stopped in order: the learner saves its state, and the same command that
started the run goes on with it.
"""

import time
from collections.abc import Sequence

from absl import flags

from bmg.launch import backends, cli
from bmg.launch.run import backend, files, subprocesses

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
  run_backend = backends.of_run(workdir)
  status = run_backend.state(workdir)
  if status.state == backend.UNKNOWN:
    raise cli.UsageError(status.detail)
  if status.is_over:
    print(f'Not running: {workdir}{_reason(status)}')
    return 0
  try:
    run_backend.stop(workdir)
  except subprocesses.CommandError as error:
    raise cli.UsageError(str(error)) from error
  timeout_s: float = flag_values['timeout_s'].value or 0.0
  return _await_end(run_backend, workdir, timeout_s)


def _await_end(
  run_backend: backend.Backend, workdir: str, timeout_s: float
) -> int:
  until = time.monotonic() + timeout_s
  status = backend.Status(files.RUNNING)
  while time.monotonic() < until:
    status = run_backend.state(workdir)
    if status.state == files.FAILED:
      print(f'Failed while it stopped: {workdir}{_reason(status)}')
      return 1
    if status.is_over:
      print(f'Stopped: {workdir}')
      return 0
    time.sleep(_POLL_S)
  print(f'Still stopping after {timeout_s:g} s: {workdir}{_reason(status)}')
  return 1


def _reason(status: backend.Status) -> str:
  return f' ({status.detail})' if status.detail else ''


def entry() -> None:
  """The command `bmg stop`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
