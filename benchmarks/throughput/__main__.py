"""Measures the parts of a run and the whole, in emulator frames per second.

Usage: python -m bmg.benchmarks.throughput --config=configs/atari_local.py
         [--config.<group>.<field>=...] [--parts=actor,learner-none]
       python -m bmg.benchmarks.throughput --compare=before.json,after.json

docs/benchmarks.md says what each part is and how to read the figures.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence

from absl import flags
from rich.console import Console

from bmg.benchmarks.harness import command, measurement, parts, report
from bmg.benchmarks.throughput import end_to_end
from bmg.configs import schema
from bmg.launch import cli

_LEARNER_PARTS = {
  report.learner_part(mode, length): (mode, length)
  for mode, length in (('none', 1), ('mg', 1), ('bmg', 1), ('bmg', 4))
}
_RUN_PARTS = {report.END_TO_END + mode: mode for mode in ('none', 'bmg')}
PARTS = (
  'environment',
  'inference',
  'actor',
  'replay',
  *_LEARNER_PARTS,
  *_RUN_PARTS,
)


def main(argv: Sequence[str]) -> int:
  """Measures, prints and saves; or compares two reports.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: a part cannot be measured.
  """
  flag_values = _define_flags()
  console = Console()
  if any(argument.lstrip('-').startswith('compare') for argument in argv[1:]):
    # `make benchmark` names a recipe in any case.
    cli.parse(flag_values, [a for a in argv if not a.startswith('--config')])
    first, second = (
      _load(path) for path in _pair(command.value(flag_values, 'compare'))
    )
    console.print(report.comparison_table(first, second))
    return 0
  config = cli.parse_with_config(flag_values, argv)
  names = _select(command.value(flag_values, 'parts'))
  if command.value(flag_values, 'profile'):
    command.new_folder(command.value(flag_values, 'profile'), 'profile')
  command.clean_up_on_sigterm()
  benchmark = _Benchmark(config, flag_values, argv, console)
  for name in names:
    benchmark.measure(name)
  benchmark.print()
  return 0


class _Benchmark:
  """Measures part after part; what is done is saved."""

  def __init__(
    self,
    config: schema.Config,
    flag_values: flags.FlagValues,
    argv: Sequence[str],
    console: Console,
  ):
    self._config = config
    self._seconds: float = command.value(flag_values, 'seconds')
    self._repeats: int = command.value(flag_values, 'repeats')
    self._profile: str = command.value(flag_values, 'profile')
    self._run_arguments = command.run_arguments(flag_values)
    self._console = console
    self._num_cores = len(os.sched_getaffinity(0))
    self._output = pathlib.Path(command.value(flag_values, 'out'))
    self._results: dict[str, measurement.Result] = {}
    self._circumstances = command.circumstances(argv, config, console)
    # Better now than after all the measuring.
    self._save()

  def measure(self, name: str) -> None:
    """Measures one of `PARTS`."""
    self._console.print(f'{name} ...', end=' ')
    with tempfile.TemporaryDirectory(prefix='bmg-benchmark-') as folder:
      result = self._measure(name, folder)
    self._results[name] = result
    self._save()
    self._console.print(f'{result.frames_per_second:,.0f} frames/s')

  def print(self) -> None:
    """Prints all results."""
    for table in (
      report.parts_table(self._results),
      report.acting_table(self._results),
      report.limits_table(self._results, self._config, self._num_cores),
      report.processes_table(self._results),
    ):
      if table.row_count:
        self._console.print()
        self._console.print(table)
    self._console.print(f'\nSaved in {self._output}')

  def _measure(self, name: str, folder: str) -> measurement.Result:
    repetition = (self._seconds, self._repeats, folder)
    if name in _RUN_PARTS:
      return end_to_end.measure(
        [*self._run_arguments, f'--config.meta.mode={_RUN_PARTS[name]}'],
        self._config,
        *repetition,
      )
    profile = os.path.join(self._profile, name) if self._profile else ''
    if name in _LEARNER_PARTS:
      mode, length = _LEARNER_PARTS[name]
      meta = dataclasses.replace(
        self._config.meta, mode=mode, bootstrap_length=length
      )
      config = dataclasses.replace(self._config, meta=meta)
      return parts.measure_alone('learner', config, *repetition, profile)
    if name == 'replay':
      return parts.measure_replay(self._config, *repetition, profile)
    return parts.measure_alone(name, self._config, *repetition, profile)

  def _save(self) -> None:
    bounds = report.limits(self._results, self._config, self._num_cores)
    values = {
      **self._circumstances,
      'parts': {name: part.to_dict() for name, part in self._results.items()},
      'limits': {mode: bound._asdict() for mode, bound in bounds.items()},
    }
    command.save(self._output, values)


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_list(
    'parts',
    list(PARTS),
    'What to measure; "learner" stands for all that begin with it.',
    flag_values=flag_values,
  )
  command.define_windows(flag_values, seconds=8.0, repeats=3)
  command.define_out(flag_values, 'latest.json')
  flags.DEFINE_string(
    'profile',
    '',
    'New folder for a trace of each part, whole runs excepted. It costs time, '
    'so that the figures mean less.',
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    'compare',
    None,
    'Two files of results: prints how they differ, measures nothing.',
    flag_values=flag_values,
  )
  return flag_values


def _select(wanted: Sequence[str]) -> list[str]:
  """Returns the parts that are meant, in order.

  Raises:
    UsageError: there is no such part.
  """
  chosen = set()
  for prefix in wanted:
    meant = {
      name for name in PARTS if name == prefix or name.startswith(f'{prefix}-')
    }
    if not meant:
      raise cli.UsageError(
        f'--parts: {prefix!r} is not a part; known: {", ".join(PARTS)}'
      )
    chosen |= meant
  return [name for name in PARTS if name in chosen]


def _pair(paths: Sequence[str]) -> Sequence[str]:
  if len(paths) != 2:
    raise cli.UsageError(f'--compare takes two files, not {len(paths)}')
  return paths


def _load(path: str) -> dict[str, measurement.Result]:
  try:
    with open(path, encoding='utf-8') as file:
      values = json.load(file)
    return {
      name: measurement.from_dict(part)
      for name, part in values['parts'].items()
    }
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise cli.UsageError(
      f'{path} is not a file of results: {type(error).__name__}: {error}'
    ) from error


if __name__ == '__main__':
  cli.run_main(main)
