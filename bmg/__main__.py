"""The command line of the house: `bmg COMMAND ...`, or `python -m bmg ...`."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import bmg

_USAGE_STATUS = 2


class Command(NamedTuple):
  """A subcommand: what it does, and the module whose `entry` does it."""

  summary: str
  module: str


COMMANDS = {
  'train': Command('train an agent, or resume it', 'launch.commands.train'),
  'evaluate': Command(
    'play games with a trained agent', 'launch.commands.evaluate'
  ),
  'stop': Command('stop a run, wherever it is', 'launch.commands.stop'),
  'watch': Command('show a run that goes on', 'launch.commands.watch'),
  'sweep': Command('train a grid of runs', 'launch.commands.sweep'),
  'plot': Command('draw the curves of runs', 'evaluation.plot'),
  'report': Command('report on many runs', 'evaluation.report.__main__'),
  'archive': Command('keep small records of runs', 'evaluation.archive'),
  'config': Command(
    'print a configuration, every field', 'launch.commands.config'
  ),
  'doctor': Command('check this machine', 'launch.commands.doctor'),
  'two-colors': Command(
    'run the study of two colors', 'experiments.two_colors.__main__'
  ),
  'few-shot': Command(
    'run the study of few-shot learning', 'experiments.few_shot.__main__'
  ),
}


def usage() -> str:
  """Returns the help: all commands, each with what it does."""
  width = max(map(len, COMMANDS))
  lines = [
    f'  {name:{width}}  {command.summary}' for name, command in COMMANDS.items()
  ]
  return '\n'.join(
    [
      'usage: bmg COMMAND ...',
      '',
      *lines,
      '',
      'bmg COMMAND --help shows the flags of a command.',
    ]
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command that the first argument names.

  Args:
    argv: the command line, with the program's name first; by default that of
      the process.

  Raises:
    SystemExit: help was asked for, or there is no such command. Commands end
      the process, too.
  """
  argv = list(sys.argv if argv is None else argv)
  name = argv[1] if len(argv) > 1 else '--help'
  if name in ('--help', '-h', 'help'):
    print(usage())
    raise SystemExit(0 if len(argv) > 1 else _USAGE_STATUS)
  if name == '--version':
    print(f'bmg {bmg.__version__}')
    raise SystemExit(0)
  if name not in COMMANDS:
    message = f'error: there is no command {name!r}'
    nearest = difflib.get_close_matches(name, COMMANDS, n=1)
    if nearest:
      message += f'. Did you mean {nearest[0]!r}?'
    print(f'{message} (commands: {", ".join(COMMANDS)})', file=sys.stderr)
    raise SystemExit(_USAGE_STATUS)
  # What a command reads, and what the records of a run hold.
  sys.argv = [f'bmg {name}', *argv[2:]]
  importlib.import_module(f'bmg.{COMMANDS[name].module}').entry()


if __name__ == '__main__':
  main()
