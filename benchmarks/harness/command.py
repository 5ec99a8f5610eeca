"""What the commands of the benchmarks have in common."""

import os
import pathlib
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psutil
from absl import flags
from ml_collections import config_flags
from rich.console import Console

from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.local import environment as environment_lib
from bmg.launch.run import files, provenance

# A machine with more of its cores taken before the start is called busy.
_BUSY = 0.1
# Environment variable of a program that has those of a node.
_TAKEN = 'BMG_BENCHMARK_NODE'


def value(flag_values: flags.FlagValues, name: str) -> Any:
  """Returns the value of a flag."""
  return flag_values[name].value


def define_out(flag_values: flags.FlagValues, name: str) -> None:
  """Defines --out, for the file that `save` writes.

  Args:
    flag_values: gets the flag.
    name: of that file in the folder of results, by default.
  """
  flags.DEFINE_string(
    'out',
    f'benchmarks/results/{name}',
    'Where the results are saved.',
    flag_values=flag_values,
  )


def define_windows(
  flag_values: flags.FlagValues, seconds: float, repeats: int
) -> None:
  """Defines --seconds and --repeats, with these values by default."""
  flags.DEFINE_float(
    'seconds',
    seconds,
    'Length of one window.',
    lower_bound=0.1,
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'repeats',
    repeats,
    'Windows of each measurement; medians count.',
    lower_bound=1,
    flag_values=flag_values,
  )


def with_recipe(
  argv: Sequence[str], recipe: str = 'configs/atari_local.py'
) -> list[str]:
  """Adds a recipe, that of `make train`, where the command line names none."""
  names = {argument.lstrip('-').partition('=')[0] for argument in argv[1:]}
  default = [] if 'config' in names else [f'--config={recipe}']
  return [argv[0], *default, *argv[1:]]


def run_arguments(
  flag_values: flags.FlagValues, defaults: Mapping[str, Any] | None = None
) -> list[str]:
  """Returns flags for `bmg train` that give the same configuration again.

  Args:
    flag_values: of this command line, with its recipe and overrides.
    defaults: values of further fields, unless they are overridden, too.
  """
  flag: Any = flag_values['config']
  fields = {**(defaults or {}), **config_flags.get_override_values(flag)}
  return [
    f'--config={config_flags.get_config_filename(flag)}',
    *(f'--config.{field}={value}' for field, value in fields.items()),
  ]


def choose(
  flag: str, wanted: Sequence[str], known: Collection[str], noun: str
) -> list[str]:
  """Returns the names that are wanted, in the order of the known ones.

  Args:
    flag: whose value they are.
    wanted: some of the known ones.
    known: all of them.
    noun: what one of them is.

  Raises:
    UsageError: one of them is not known.
  """
  for name in wanted:
    if name not in known:
      raise cli.UsageError(
        f'--{flag}: {name!r} is not a {noun}; known: {", ".join(known)}'
      )
  return [name for name in known if name in wanted]


def clean_up_on_sigterm() -> None:
  """Has SIGTERM, like Ctrl-C, leave neither processes nor files behind."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)


def take_environment(
  group: str, config: schema.Config, module: str, argv: Sequence[str]
) -> None:
  """Starts this program anew, with the environment variables of a run's node.

  XLA and glibc read some of them when a process begins.

  Args:
    group: a key of `topology.GROUPS`.
    config: of the run.
    module: of the program, as it is called with `python -m`.
    argv: its command line.
  """
  if _TAKEN not in os.environ:
    environment = environment_lib.environment(
      group, schema.to_dict(config), os.environ
    )
    command = [sys.executable, '-m', module, *argv[1:]]
    os.execve(sys.executable, command, environment | {_TAKEN: group})


def circumstances(
  argv: Sequence[str], config: schema.Config, console: Console
) -> dict[str, Any]:
  """Returns what figures depend on; says so if others use the machine.

  Args:
    argv: the command line.
    config: of the run that is measured.
    console: where to say it.
  """
  busy = psutil.cpu_percent(interval=1.0) / 100
  if busy > _BUSY:
    console.print(
      f'Note: other programs keep {busy:.0%} of this machine busy; '
      'all figures suffer from it.'
    )
  return {
    **provenance.describe(argv),
    'busy_before': busy,
    'config': schema.to_dict(config),
  }


def new_folder(path: str, flag: str = 'out') -> pathlib.Path:
  """Makes the folder that a flag names.

  Raises:
    UsageError: it cannot be made, or holds something already.
  """
  folder = pathlib.Path(path).absolute()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
      raise cli.UsageError(f'--{flag}={path}: is not empty; take a new folder')
  except OSError as error:
    raise cli.UsageError(
      f'--{flag}={path}: cannot be made: {error.strerror}'
    ) from error
  return folder


def whole_numbers(flag_values: flags.FlagValues, name: str) -> list[int]:
  """Returns the value of a flag that is a list of numbers from 1.

  Raises:
    UsageError: it is something else.
  """
  texts = value(flag_values, name)
  for text in texts:
    if not text.isdecimal() or int(text) < 1:
      raise cli.UsageError(f'--{name}: {text!r} must be a whole number from 1')
  return [int(text) for text in texts]


def save(path: pathlib.Path, values: Mapping[str, Any]) -> None:
  """Writes the results to the file that --out names.

  Raises:
    UsageError: it cannot be written.
  """
  try:
    files.write_json(path, values)
  except OSError as error:
    raise cli.UsageError(
      f'--out={path}: cannot be written: {error.strerror}'
    ) from error
