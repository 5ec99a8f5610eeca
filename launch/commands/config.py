"""Prints the configuration that a recipe and its overrides make.

Usage: python -m bmg config --config=configs/atari_local.py
         --config.env.game=breakout
"""

import json
from collections.abc import Sequence

from absl import flags

from bmg.configs import schema
from bmg.configs.schema import listing
from bmg.launch import cli

# Sets nothing, so that overrides alone will do.
_DEFAULTS = 'configs/base.py'


def main(argv: Sequence[str]) -> int:
  """Prints every field of a configuration, and what it means.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status, 0.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
  """
  flag_values = flags.FlagValues()
  flags.DEFINE_boolean(
    'json',
    False,
    'Print JSON, as in the config.json of a run.',
    flag_values=flag_values,
  )
  recipe, rest = cli.take_flag(argv, 'config')
  if recipe is None:
    recipe = cli.recipe_path(_DEFAULTS)
    argv = [rest[0], f'--config={recipe}', *rest[1:]]
  config = cli.parse_with_config(flag_values, argv)
  if flag_values['json'].value:
    cli.show(json.dumps(schema.to_dict(config), indent=2))
  else:
    cli.show(_describe(config, recipe))
  return 0


def _describe(config: schema.Config, recipe: str) -> str:
  defaults = schema.Config()
  number = listing.count_differences(config, defaults)
  title = {
    0: 'every field has its default',
    1: 'the field marked by * differs from its default',
  }.get(number, f'the {number} fields marked by * differ from their defaults')
  return f'{recipe}: {title}\n\n{listing.describe_values(config, defaults)}'


def entry() -> None:
  """The command `bmg config`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
