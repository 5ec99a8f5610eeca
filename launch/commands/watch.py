"""Shows a run that goes on elsewhere: `python -m bmg watch --workdir=...`.

What the run itself would show, from the files in its folder. Ends with the run,
or with Ctrl-C; the run does not notice.
"""

import time
from collections.abc import Sequence

from absl import flags

from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.run import display as display_lib
from bmg.launch.run import files

_POLL_S = 0.2


def main(argv: Sequence[str]) -> int:
  """Shows a run until it is over; returns the exit status.

  Raises:
    UsageError: there is no such run.
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
  with display_lib.Display(schema.from_config_dict(values), workdir) as display:
    while True:
      state = files.launch_state(workdir)
      display.update()
      if state in files.FINAL_STATES:
        display.say(f'The run is over: {state}.')
        return int(state == files.FAILED)
      time.sleep(_POLL_S)


def entry() -> None:
  """The command `bmg watch`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
