"""A sweep of fake runs: `python -m tests.launch.fake_sweep SCRIPT FLAGS...`."""

import sys

from launch import cli
from launch.sweep import __main__ as sweep


def main(argv):
  _, script, *arguments = argv
  command = (sys.executable, '-S', script)
  return sweep.main(['sweep', *arguments], command)


if __name__ == '__main__':
  cli.run_main(main)
