"""A sweep of fake runs: `python -m tests.launch.sweep.fake_sweep ...`."""

import sys

from bmg.launch import cli
from bmg.launch.commands import sweep
from bmg.launch.sweep import cells, folder


def settings(*configs, **changes):
  """Settings of a sweep of one configuration for each variant."""
  values = {
    'games': ('pong',),
    'seeds': (1,),
    'launcher': 'local',
    'variants': cells.NO_VARIANTS,
    **changes,
  }
  by_variant = dict(zip(values['variants'], configs, strict=True))
  return folder.Settings(
    recipe='recipe.py',
    overrides={},
    configs=folder.common_configs(by_variant),
    **values,
  )


def main(argv):
  _, script, *arguments = argv
  command = (sys.executable, '-S', script)
  return sweep.main(['sweep', *arguments], command)


if __name__ == '__main__':
  cli.run_main(main)
