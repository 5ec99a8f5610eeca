"""What the measurements say: limits, tables, comparisons."""

from collections.abc import Mapping
from typing import NamedTuple

from rich.table import Table

from bmg.benchmarks.harness import measurement
from bmg.configs import schema

Results = Mapping[str, measurement.Result]

# Begins the name of a whole run, which ends in its mode.
END_TO_END = 'end_to_end-'


class Limit(NamedTuple):
  """How fast a whole run can be, judged by its parts alone. In frames/s."""

  # The part that allows least, and what it allows with a core to itself.
  slowest_part: str
  slowest_alone: float
  # What the cores allow if they never idle and nothing else runs.
  shared_cores: float


def learner_part(mode: str, bootstrap_length: int) -> str:
  """The name of the training step in a mode."""
  return (
    f'learner-bmg-L{bootstrap_length}' if mode == 'bmg' else f'learner-{mode}'
  )


def limit(
  results: Results, config: schema.Config, mode: str, num_cores: int
) -> Limit | None:
  """Computes what the parts allow a run in `mode`.

  Actors run side by side, as far as there are cores for them; the other parts
  exist once. Each frame has to be acted, passed on and learned from, so its CPU
  time is the sum over these parts.

  Args:
    results: of the parts that were measured, by name.
    config: of the run.
    mode: none, mg or bmg.
    num_cores: of the machine.

  Returns:
    The limits; None if a part was not measured.
  """
  names = ('actor', 'replay', learner_part(mode, config.meta.bootstrap_length))
  if any(name not in results for name in names):
    return None
  allowed = {name: results[name].frames_per_second for name in names}
  allowed['actor'] = min(
    allowed['actor'] * config.actors.num_actors,
    num_cores / results['actor'].cpu_seconds_per_frame,
  )
  slowest = min(allowed, key=lambda name: allowed[name])
  cpu_seconds = sum(results[name].cpu_seconds_per_frame for name in names)
  return Limit(slowest, allowed[slowest], num_cores / cpu_seconds)


def limits(
  results: Results, config: schema.Config, num_cores: int
) -> dict[str, Limit]:
  """Returns the limit of each whole run that was measured, by mode."""
  modes = [
    name.removeprefix(END_TO_END)
    for name in results
    if name.startswith(END_TO_END)
  ]
  bounds = {mode: limit(results, config, mode, num_cores) for mode in modes}
  return {mode: bound for mode, bound in bounds.items() if bound is not None}


def parts_table(results: Results) -> Table:
  """One line per part."""
  table = make_table(
    'part',
    'frames/s',
    'spread',
    'CPU us/frame',
    'cores',
    'no data',
    'no room',
  )
  for name, result in results.items():
    table.add_row(
      name,
      _count(result.frames_per_second),
      _share(
        (max(result.rates) - min(result.rates)) / result.frames_per_second
      ),
      f'{1e6 * result.cpu_seconds_per_frame:.1f}',
      f'{sum(result.cores.values()):.2f}',
      _share(result.wait_data),
      _share(result.wait_insert),
    )
  return table


def acting_table(results: Results) -> Table:
  """Compares an actor with its games and inference, one after the other."""
  table = make_table('actor', 'environment and inference in turns', 'reached')
  names = ('actor', 'environment', 'inference')
  if all(name in results for name in names):
    rate, *alone = (results[name].frames_per_second for name in names)
    in_turns = 1 / sum(1 / each for each in alone)
    table.add_row(_count(rate), _count(in_turns), _share(rate / in_turns))
  return table


def limits_table(
  results: Results, config: schema.Config, num_cores: int
) -> Table:
  """Compares each mode's whole run with what its parts allow."""
  table = make_table(
    'mode',
    'end to end',
    'slowest part alone',
    'reached',
    f'{num_cores} cores allow',
    'reached',
  )
  for mode, bound in limits(results, config, num_cores).items():
    reached = results[END_TO_END + mode].frames_per_second
    table.add_row(
      mode,
      _count(reached),
      f'{_count(bound.slowest_alone)} ({bound.slowest_part})',
      _share(reached / bound.slowest_alone),
      _count(bound.shared_cores),
      _share(reached / bound.shared_cores),
    )
  return table


def processes_table(results: Results) -> Table:
  """Cores and memory of each process of the whole runs."""
  table = make_table('process', 'part', 'cores', 'peak memory, MB')
  for part, result in results.items():
    for name, memory in result.peak_memory.items():
      table.add_row(
        name, part, f'{result.cores[name]:.2f}', _count(memory / 1e6)
      )
  return table


def comparison_table(first: Results, second: Results) -> Table:
  """How much faster each part is in the second of two reports."""
  table = make_table('part', 'first, frames/s', 'second, frames/s', 'ratio')
  for name in first:
    if name in second:
      rates = first[name].frames_per_second, second[name].frames_per_second
      table.add_row(
        name,
        *(_count(rate) for rate in rates),
        f'{rates[1] / rates[0]:.2f}',
      )
  return table


def make_table(*columns: str) -> Table:
  """Returns a table without rows; its first column names them."""
  table = Table(box=None)
  for i, column in enumerate(columns):
    table.add_column(column, justify='right' if i else 'left', no_wrap=not i)
  return table


def _count(value: float) -> str:
  """12345.6 -> '12,346'."""
  return f'{value:,.0f}'


def _share(value: float | None) -> str:
  return '-' if value is None else f'{100 * value:.0f} %'
