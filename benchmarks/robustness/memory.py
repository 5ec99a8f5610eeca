"""Follows the memory of each process of a real run.

Usage: python -m bmg.benchmarks.robustness.memory [--minutes=60] [--period_s=10]
         [--config=configs/atari_local.py] [--config.<field>=...] [--out=FOLDER]

docs/benchmarks.md says how to read the figures.
"""

import csv
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import matplotlib
import numpy as np
import psutil
from absl import flags
from matplotlib import figure
from rich.console import Console
from rich.table import Table

from bmg import errors
from bmg.benchmarks.harness import command, live_run, report
from bmg.configs import schema
from bmg.evaluation import figure_style
from bmg.launch import cli
from bmg.launch.run import topology

# More than any run is long.
_FRAMES = 10**10
# For all processes to start, and the learner to learn.
_START_S = 300.0
_SECONDS, _FRAMES_COLUMN = 'seconds', 'num_frames'

# Seconds, frames, and bytes of each process by name.
Row = Mapping[str, float]


def main(argv: Sequence[str]) -> int:
  """Makes the run, prints and saves what its processes held.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: a process ended, or the run does not stop.
  """
  flag_values = _define_flags()
  cli.parse_with_config(flag_values, command.with_recipe(argv))
  arguments = command.run_arguments(flag_values, {'num_frames': _FRAMES})
  config = cli.parse_with_config(flags.FlagValues(), ['', *arguments])
  folder = command.new_folder(command.value(flag_values, 'out'))
  command.clean_up_on_sigterm()
  console = Console(soft_wrap=not sys.stdout.isatty())
  saved = command.circumstances(argv, config, console)
  command.save(folder / 'memory.json', saved)
  workdir = str(folder / 'run')
  with (
    live_run.start('launcher', arguments, config, workdir, str(folder)) as run,
    open(folder / 'memory.csv', 'w', encoding='utf-8', newline='') as file,
  ):
    rows = follow(
      run,
      config,
      60 * command.value(flag_values, 'minutes'),
      command.value(flag_values, 'period_s'),
      _writer(file),
    )
  draw(rows, folder / 'memory.png')
  console.print(make_table(rows))
  console.print(f'\nSaved in {folder}')
  return 0


def follow(
  run: live_run.LiveRun,
  config: schema.Config,
  seconds: float,
  period_s: float,
  write: Callable[[Row], None],
) -> list[Row]:
  """Reads the memory of every process again and again.

  Args:
    run: just started; the clock starts with its first row.
    config: of the run.
    seconds: for how long.
    period_s: between two looks.
    write: is given each look.

  Returns:
    All looks.

  Raises:
    FatalError: a process ended, or the run did not begin.
  """
  nodes = topology.nodes(schema.to_dict(config))
  run.await_condition(
    lambda: run.row() is not None and all(run.pid(node) for node in nodes),
    _START_S,
  )
  processes = {str(node): psutil.Process(run.pid(node)) for node in nodes}
  rows: list[Row] = []
  start = time.monotonic()
  elapsed = 0.0
  while elapsed < seconds:
    time.sleep(max(0.0, start + len(rows) * period_s - time.monotonic()))
    run.launcher.check()
    newest = run.row()
    assert newest is not None
    elapsed = time.monotonic() - start
    row = {_SECONDS: elapsed, _FRAMES_COLUMN: newest['num_frames']}
    for name, process in processes.items():
      try:
        row[name] = process.memory_info().rss
      except psutil.NoSuchProcess:
        raise errors.FatalError(f'{name} ended') from None
    rows.append(row)
    write(row)
  return rows


def make_table(rows: Sequence[Row]) -> Table:
  """One line per process: MB, and how much more of them in an hour.

  The growth is the slope of a line through the second half of the looks.
  """
  table = report.make_table(
    'process', 'first, MB', 'half, MB', 'last, MB', 'most, MB', 'growth, MB/h'
  )
  late = rows[len(rows) // 2 :]
  hours = [row[_SECONDS] / 3600 for row in late]
  for name in _processes(rows):
    values = [row[name] / 1e6 for row in rows]
    growth = '-'
    if len(late) > 1:
      slope, _ = np.polyfit(hours, [row[name] / 1e6 for row in late], deg=1)
      growth = f'{slope:+.1f}'
    chosen = (values[0], values[len(rows) // 2], values[-1], max(values))
    table.add_row(name, *(f'{value:,.0f}' for value in chosen), growth)
  frames = rows[-1][_FRAMES_COLUMN] - rows[0][_FRAMES_COLUMN]
  table.caption = f'{rows[-1][_SECONDS] / 60:.0f} minutes, {frames:,.0f} frames'
  return table


def draw(rows: Sequence[Row], path: pathlib.Path) -> None:
  """Draws the memory of each process over time."""
  with matplotlib.rc_context(figure_style.STYLE):
    fig = figure.Figure(figsize=(6, 3), layout='constrained')
    axes = fig.add_subplot()
    minutes = [row[_SECONDS] / 60 for row in rows]
    for name in _processes(rows):
      axes.plot(minutes, [row[name] / 1e6 for row in rows], label=name)
    axes.set(xlabel='minutes', ylabel='resident memory, MB', ylim=0)
    axes.legend()
    fig.savefig(path)


def _processes(rows: Sequence[Row]) -> list[str]:
  return [name for name in rows[0] if name not in (_SECONDS, _FRAMES_COLUMN)]


def _writer(file: TextIO) -> Callable[[Row], None]:
  """Returns what adds a look to a CSV file, with names first."""
  writer = csv.writer(file)

  def write(row: Row) -> None:
    if not file.tell():
      writer.writerow(row)
    writer.writerow(f'{value:.0f}' for value in row.values())
    file.flush()

  return write


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_float(
    'minutes',
    60.0,
    'For how long the run is followed once it learns.',
    lower_bound=0.01,
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    'period_s',
    10.0,
    'Seconds from one look to the next.',
    lower_bound=0.1,
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'out',
    'benchmarks/results/memory',
    'New folder for the results, and for the run.',
    flag_values=flag_values,
  )
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
