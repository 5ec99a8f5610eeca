"""A sweep of fake runs: `python -m tests.launch.sweep.fake_sweep ...`."""

import sys

from launch import cli
from launch.sweep import __main__ as sweep
from launch.sweep import folder


def settings(config, **changes):
  values = {'games': ('pong',), 'seeds': (1,), 'launcher': 'local', **changes}
  return folder.Settings(
    recipe='recipe.py',
    overrides={},
    config=folder.common_config(config),
    **values,
  )


def main(argv):
  _, script, *arguments = argv
  command = (sys.executable, '-S', script)
  return sweep.main(['sweep', *arguments], command)


if __name__ == '__main__':
  cli.run_main(main)
