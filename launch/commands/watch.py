"""Shows a run that goes on elsewhere: `python -m bmg watch --workdir=...`.

What the run itself would show, from the files in its folder. Ends with the run,
of which its backend is asked, or with Ctrl-C; the run does not notice.
"""

import time
from collections.abc import Sequence

from absl import flags

from bmg.configs import schema
from bmg.launch import backends, cli
from bmg.launch.run import backend, files
from bmg.launch.run import display as display_lib

_POLL_S = 0.2


def main(argv: Sequence[str]) -> int:
  """Shows a run until it is over; returns the exit status.

  Raises:
    UsageError: there is no such run, or nothing is to be learned of it here.
  """
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'workdir', None, 'Folder of the run.', flag_values=flag_values
  )
  cli.parse(flag_values, argv)
  workdir = str(flag_values['workdir'].value or '')
  values = files.read_json(files.config(workdir))
  if not values:
    raise cli.UsageError(f'--workdir={workdir}: is not the folder of a run')
  run_backend = backends.of_run(workdir)
  # Else they are of an earlier launch, or not written on this machine.
  has_files = (
    files.launch(workdir).exists()
    and files.launch_state(workdir) not in files.FINAL_STATES
  )
  status = _look(run_backend, workdir, has_files)
  if status.state == backend.UNKNOWN:
    raise cli.UsageError(status.detail)
  with display_lib.Display(schema.from_config_dict(values), workdir) as display:
    if status.detail and not status.is_over:
      display.say(status.detail)
    next_look = time.monotonic() + run_backend.period_s
    while not status.is_over:
      display.update()
      time.sleep(_POLL_S)
      if time.monotonic() >= next_look:
        status = _look(run_backend, workdir, has_files)
        next_look = time.monotonic() + run_backend.period_s
    display.update()
    reason = f' ({status.detail})' if status.detail else ''
    display.say(f'The run is over: {status.state}{reason}.')
  return int(status.state == files.FAILED)


def _look(
  run_backend: backend.Backend, workdir: str, has_files: bool
) -> backend.Status:
  """Asks the backend; where it does not answer, the run's files, if any."""
  status = run_backend.state(workdir)
  if status.state == backend.UNKNOWN and has_files:
    return status._replace(state=files.launch_state(workdir))
  return status


def entry() -> None:
  """The command `bmg watch`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
