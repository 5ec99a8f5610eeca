"""Compares the losses of two revisions: an optimisation must not change them.

Usage: python -m bmg.benchmarks.step.losses --before=DIR [--after=DIR]
         [--updates=5] [--config=configs/atari_local.py]
         [--config.meta.mode=none] [--out=...]

docs/benchmarks.md says what it does.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

import bmg
from bmg import errors
from bmg.benchmarks.harness import command
from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.local import environment as environment_lib
from bmg.launch.run import provenance, topology

_ROOT = pathlib.Path(bmg.ROOT)
_CHILD = pathlib.Path(__file__).with_name('first_losses.py')
_TIMEOUT_S = 900
# What float32 may make of the same losses within some updates.
TOLERANCE = 1e-4

Series = Mapping[str, Sequence[float]]


def run(
  source: pathlib.Path,
  recipe: str,
  overrides: Mapping[str, Any],
  num_updates: int,
  environment: Mapping[str, str],
) -> dict[str, list[float]]:
  """Makes the first updates with the code of one source folder.

  Args:
    source: the root of a checkout.
    recipe: a file in it.
    overrides: values of the configuration's fields, by their dotted names.
    num_updates: steps of the learner.
    environment: variables of the process.

  Returns:
    The learner's metrics, each by update.

  Raises:
    FatalError: that code fails, or takes longer than a quarter of an hour.
  """
  arguments = [str(source / recipe), json.dumps(overrides), str(num_updates)]
  try:
    done = subprocess.run(
      [sys.executable, str(_CHILD), *arguments],
      env={**environment, 'PYTHONPATH': str(source)},
      cwd=source,
      capture_output=True,
      text=True,
      timeout=_TIMEOUT_S,
    )
  except subprocess.TimeoutExpired as error:
    raise errors.FatalError(
      f'The updates of {source} took longer than {_TIMEOUT_S} s.'
    ) from error
  if done.returncode != 0:
    last = (done.stderr.strip().splitlines() or ['it says nothing'])[-1]
    raise errors.FatalError(f'The updates of {source} failed: {last}')
  return json.loads(done.stdout.splitlines()[-1])


def differences(before: Series, after: Series) -> dict[str, float]:
  """Returns the largest difference of each metric that both have.

  It is relative to the metric's largest value: a loss may pass through zero.
  """
  result = {}
  for name in before:
    if name in after:
      old, new = np.asarray(before[name]), np.asarray(after[name])
      gap, scale = np.max(np.abs(new - old)), np.max(np.abs(old))
      result[name] = float(gap / scale) if scale > 0 else float(gap)
  return result


def same(differences: Mapping[str, float]) -> bool:
  """Whether all losses are the same, to `TOLERANCE` of the largest."""
  losses = [x for name, x in differences.items() if name.startswith('loss/')]
  return bool(losses) and all(x <= TOLERANCE for x in losses)


def table(
  before: Series, after: Series, differences: Mapping[str, float]
) -> Table:
  """One line per metric: values after the last update, `differences`."""
  table = Table('metric', 'before', 'after', 'difference', box=None)
  for name, difference in differences.items():
    if name.startswith('finite'):
      continue
    table.add_row(
      name,
      f'{before[name][-1]:.6g}',
      f'{after[name][-1]:.6g}',
      f'{difference:.1e}',
    )
  return table


def main(argv: Sequence[str]) -> int:
  """Compares, prints and saves.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status: 0 if the losses are the same, else 1.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: one of the revisions fails.
  """
  flag_values = _define_flags()
  config = cli.parse_with_config(flag_values, command.with_recipe(argv))
  sources = {
    name: _checkout(name, command.value(flag_values, name))
    for name in ('before', 'after')
  }
  flag: Any = flag_values['config']
  recipe = os.path.relpath(config_flags.get_config_filename(flag), _ROOT)
  overrides = config_flags.get_override_values(flag)
  console = Console()
  output = pathlib.Path(command.value(flag_values, 'out'))
  saved = provenance.describe(argv)
  # Better now than after all the computing.
  command.save(output, saved)
  environment = environment_lib.environment(
    topology.LEARNER, schema.to_dict(config), os.environ
  )
  num_updates = command.value(flag_values, 'updates')
  series = {
    name: run(source, recipe, overrides, num_updates, environment)
    for name, source in sources.items()
  }
  before, after = series['before'], series['after']
  found = differences(before, after)
  command.save(output, {**saved, **series, 'differences': found})
  console.print(table(before, after, found))
  are_same = same(found)
  console.print(
    f'\nThe losses are {"the same" if are_same else "NOT the same"}, to '
    f'{TOLERANCE:g} of the largest. Saved in {output}'
  )
  return 0 if are_same else 1


def _checkout(flag: str, path: str) -> pathlib.Path:
  root = pathlib.Path(path).absolute()
  # No path would be this folder, and compare it with itself.
  if not path or not (root / 'learner' / 'training.py').is_file():
    raise cli.UsageError(
      f'--{flag}={path}: is not a checkout of this project; "git worktree add '
      '../before <revision>" makes one'
    )
  return root


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'before',
    '',
    'Root of a checkout of the revision to compare with.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'after',
    str(_ROOT),
    'The same of the revision to be judged; by default this one.',
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'updates',
    5,
    'Steps of the learner.',
    lower_bound=1,
    flag_values=flag_values,
  )
  command.define_out(flag_values, 'losses.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
