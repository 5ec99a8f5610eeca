"""Launches fake nodes: `python -m tests.launch.fake_run WORKDIR SCRIPT`."""

import json
import os
import sys

from bmg.configs import schema
from bmg.launch.local import launcher as local
from bmg.launch.run import display as display_lib
from bmg.launch.run import files
from tests.launch import processes


def main(workdir, script):
  config = processes.small_config(**json.loads(os.environ['FAKE_LAUNCH']))
  with (
    local.lock(workdir) as lock,
    display_lib.Display(config, workdir) as display,
  ):
    files.write_json(files.config(workdir), schema.to_dict(config))
    command = (sys.executable, '-S', script)
    run = local.LocalRun(config, workdir, display, lock.fileno(), command)
    return run.run()


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
