"""Measures what each link between the processes of a run sustains.

Usage: python -m bmg.benchmarks.throughput.links
         --config=configs/atari_common84.py [--config.<group>.<field>=...]
         [--links=ingest,parameters] [--counts=1,2,4,8,16]
         [--actor_rate=1000] [--out=...]

docs/scaling.md says what the links are, and what follows for a thousand actors.
"""

import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from bmg.benchmarks.harness import command
from bmg.benchmarks.throughput import link_parts
from bmg.launch import cli


def main(argv: Sequence[str]) -> int:
  """Measures, prints and saves.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: a link cannot be measured.
  """
  flag_values = _define_flags()
  config = cli.parse_with_config(flag_values, argv)
  links = command.choose(
    'links', command.value(flag_values, 'links'), link_parts.LINKS, 'link'
  )
  counts = command.whole_numbers(flag_values, 'counts')
  command.clean_up_on_sigterm()
  console = Console()
  output = pathlib.Path(command.value(flag_values, 'out'))
  results: dict[str, dict[str, Any]] = {}
  saved = {
    **command.circumstances(argv, config, console),
    'num_cores': len(os.sched_getaffinity(0)),
    'actor_rate': command.value(flag_values, 'actor_rate'),
    'links': results,
  }
  # Better now than after all the measuring.
  command.save(output, saved)
  with tempfile.TemporaryDirectory(prefix='bmg-links-') as folder:
    settings = link_parts.Settings(
      config,
      actor_rate=saved['actor_rate'],
      seconds=command.value(flag_values, 'seconds'),
      repeats=command.value(flag_values, 'repeats'),
      recording=os.path.join(folder, 'unrolls.npz'),
    )
    link_parts.record(settings, folder)
    for name in links:
      # For the feed, a writer has but to fill each server's part of replay.
      num_servers = config.replay.num_servers
      for count in (num_servers,) if name == 'feed' else counts:
        fresh = tempfile.mkdtemp(prefix=f'{name}-{count}-', dir=folder)
        result = link_parts.measure(name, count, settings, fresh)
        results.setdefault(name, {})[str(count)] = result
        command.save(output, saved)
        console.print(f'{name} {count}: {result["per_second"]:,.0f}/s')
  for table in tables(results):
    console.print()
    console.print(table)
  console.print(f'\nSaved in {output}')
  return 0


def tables(results: Mapping[str, Mapping[str, Any]]) -> list[Table]:
  """One table per link, one line per number of writers or clients."""
  return [
    _table(link_parts.LINKS[name], name, by_count)
    for name, by_count in results.items()
  ]


def _table(
  link: link_parts.Link, name: str, by_count: Mapping[str, Any]
) -> Table:
  roles = [link_parts.SERVER, *filter(None, (link.many, link.one))]
  table = Table(
    f'{link.many}s',
    *('/s', 'MB/s', 'kB', 'ms', '95 %', *roles, 'cores', 'others'),
    title=f'{name}: {link.unit}/s, kB of each, ms of a turn, CPU ms of each',
    title_justify='left',
    box=None,
  )
  for column in table.columns:
    column.justify = 'right'
  for count, result in by_count.items():
    each = result['bytes_each'][link.counted[0]]
    # Of those who wait: writers and clients, or the one that draws.
    turn = result['turn_ms'][link.counted[-1]]
    table.add_row(
      count,
      f'{result["per_second"]:,.0f}',
      f'{result["per_second"] * each / 1e6:.1f}',
      f'{each / 1e3:.1f}',
      f'{turn["median"]:.1f}',
      f'{turn["p95"]:.1f}',
      *(f'{result["cpu_ms_each"][role]:.2f}' for role in roles),
      f'{sum(result["cores"].values()):.2f}',
      f'{result["other_cores"]:.2f}',
    )
  return table


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_list(
    'links', list(link_parts.LINKS), 'What to measure.', flag_values=flag_values
  )
  flags.DEFINE_list(
    'counts',
    ['1', '2', '4', '8', '16'],
    'Numbers of writers, and of those that ask the learner.',
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    'actor_rate',
    1000.0,
    'Emulator frames/s of a paced writer.',
    lower_bound=1.0,
    flag_values=flag_values,
  )
  command.define_windows(flag_values, seconds=4.0, repeats=3)
  command.define_out(flag_values, 'links.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
