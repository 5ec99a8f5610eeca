"""Launches fake nodes: `python -m tests.launch.fake_run WORKDIR SCRIPT`."""

import json
import os
import sys

from configs import schema
from launch import local, run_files, status
from tests.launch import processes


def main(workdir, script):
  config = processes.small_config(**json.loads(os.environ['FAKE_LAUNCH']))
  with local.lock(workdir) as lock, status.Display(config, workdir) as display:
    run_files.write_json(run_files.config(workdir), schema.to_dict(config))
    command = (sys.executable, '-S', script)
    run = local.LocalRun(config, workdir, display, lock.fileno(), command)
    return run.run()


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
