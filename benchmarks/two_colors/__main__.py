"""Measures two colors on one core, beside its actor-critic in PyTorch.

Usage: python -m bmg.benchmarks.two_colors
         [--config=configs/two_colors/table.py] [--seeds=1,5,10]
         [--agents=ac_fixed] [--torch_python=PATH] [--seconds=5]
         [--repeats=5] [--out=...]

docs/benchmarks.md says how to read the figures.
"""

import dataclasses
import math
import os
import pathlib
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import flags
from rich.console import Console
from rich.table import Table

from bmg.benchmarks.harness import command
from bmg.configs.two_colors import schema
from bmg.experiments import command as experiments_command
from bmg.experiments import devices
from bmg.experiments.two_colors import __main__ as study_command
from bmg.experiments.two_colors import run
from bmg.launch import cli
from bmg.launch.run import provenance

# Steps of each seed between two looks at the clock.
_CHUNK_STEPS = 2_048
_TORCH_SCRIPT = pathlib.Path(__file__).with_name('two_colors_torch.py')
_TORCH_DEADLINE_S = 120.0


class Compiled:
  """The seeds of one agent, ready to run."""

  def __init__(self, study: schema.Study, name: str, num_seeds: int):
    """Compiles, and makes a first chunk of steps."""
    agent = run.make_agent(study, name)
    updates = math.ceil(_CHUNK_STEPS / agent.num_steps)
    sharding = run.make_sharding(num_seeds)
    keys = jax.random.split(jax.random.PRNGKey(study.seed), num_seeds)
    self._state = jax.jit(jax.vmap(agent.init), out_shardings=sharding)(keys)
    self._chunk = run.make_chunk(agent, sharding, updates, 1, self._state)
    self._steps = updates * agent.num_steps * num_seeds
    self._run_chunk()

  def steps_per_second(self, seconds: float) -> float:
    """Returns the steps of all seeds per second, over `seconds` or more."""
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < seconds:
      self._run_chunk()
      steps += self._steps
    return steps / (time.monotonic() - start)

  def _run_chunk(self) -> None:
    self._state, metrics = self._chunk(self._state)
    jax.block_until_ready(metrics)


@dataclasses.dataclass(frozen=True)
class Row:
  """Steps per second, of all seeds, of each repeat."""

  agent: str
  seeds: int
  rates: tuple[float, ...]
  # Of PyTorch's `ac_fixed`, just before each repeat; none without PyTorch.
  torch_rates: tuple[float, ...] = ()

  @property
  def rate(self) -> float:
    """Median over the repeats."""
    return statistics.median(self.rates)

  @property
  def ratio(self) -> float | None:
    """How many times PyTorch's rate; the median over the repeats."""
    if not self.torch_rates:
      return None
    pairs = zip(self.rates, self.torch_rates, strict=True)
    return statistics.median(own / other for own, other in pairs)


def torch_steps_per_second(python: str, seconds: float) -> float:
  """Runs benchmarks/two_colors/torch_steps.py.

  Raises:
    UsageError: `python` is no interpreter that has PyTorch.
  """
  try:
    done = subprocess.run(
      [python, str(_TORCH_SCRIPT), str(seconds)],
      check=True,
      capture_output=True,
      text=True,
      timeout=seconds + _TORCH_DEADLINE_S,
    )
  except OSError as error:
    raise cli.UsageError(
      f'--torch_python={python}: cannot be run: {error.strerror}'
    ) from error
  except subprocess.CalledProcessError as error:
    reason = (error.stderr.strip().splitlines() or ['no reason given'])[-1]
    raise cli.UsageError(f'--torch_python={python}: {reason}') from error
  except subprocess.TimeoutExpired as error:
    raise cli.UsageError(
      f'--torch_python={python}: no answer in {error.timeout:.0f} s'
    ) from error
  return float(done.stdout)


def main(argv: Sequence[str]) -> int:
  """Measures, shows a table and writes the results.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
  """
  flag_values = _make_flags()
  argv = experiments_command.with_default_recipe(
    argv, study_command.DEFAULT_RECIPE
  )
  study = cli.parse_with_recipe(flag_values, argv, study_command.STUDIES)
  names = experiments_command.choose(
    'agents', list(study.agents), command.value(flag_values, 'agents')
  )
  seeds = _parse_seeds(command.value(flag_values, 'seeds'))
  python = command.value(flag_values, 'torch_python')
  seconds = command.value(flag_values, 'seconds')
  repeats = command.value(flag_values, 'repeats')
  output = pathlib.Path(command.value(flag_values, 'out'))
  saved = provenance.describe(argv)
  # Better now than after all the measuring.
  command.save(output, saved)
  # One core, so that the rates are a core's; PyTorch inherits this.
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  devices.one_per_core()
  rows = []
  for name in names:
    for count in seeds:
      compiled = Compiled(study, name, count)
      rates, torch_rates = [], []
      for _ in range(repeats):
        if python:
          torch_rates.append(torch_steps_per_second(python, seconds))
        rates.append(compiled.steps_per_second(seconds))
      rows.append(Row(name, count, tuple(rates), tuple(torch_rates)))
      command.save(output, {**saved, 'rows': [_to_dict(row) for row in rows]})
      print(f'{name}, {count} seeds: {rows[-1].rate:.0f} steps/s', flush=True)
  Console().print(_make_table(rows))
  print(f'Saved in {output}')
  return 0


def _make_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_list(
    'agents',
    [],
    'Agents of the recipe, by name; all by default.',
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    'seeds', ['1', '5', '10'], 'Seeds at once.', flag_values=flag_values
  )
  flags.DEFINE_string(
    'torch_python',
    '',
    'Python interpreter that has PyTorch; without it there is no comparison.',
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    'seconds', 5.0, 'Of each repeat.', 0.01, flag_values=flag_values
  )
  flags.DEFINE_integer(
    'repeats', 5, 'Of each measurement.', 1, flag_values=flag_values
  )
  command.define_out(flag_values, 'two_colors.json')
  return flag_values


def _parse_seeds(texts: Sequence[str]) -> list[int]:
  try:
    seeds = [int(text) for text in texts]
  except ValueError:
    seeds = []
  if not seeds or min(seeds) < 1:
    raise cli.UsageError(
      f'--seeds={",".join(texts)}: must be integers of at least 1'
    )
  return seeds


def _make_table(rows: Sequence[Row]) -> Table:
  result = Table(title='Steps per second on one core, medians')
  for title in (
    'agent',
    'seeds',
    'steps/s',
    'us per step',
    'times PyTorch A2C',
  ):
    result.add_column(title, justify='left' if title == 'agent' else 'right')
  for row in rows:
    ratio = '' if row.ratio is None else f'{row.ratio:.1f}'
    result.add_row(
      row.agent,
      str(row.seeds),
      f'{row.rate:,.0f}',
      f'{1e6 / row.rate:.1f}',
      ratio,
    )
  return result


def _to_dict(row: Row) -> Mapping[str, Any]:
  return {**dataclasses.asdict(row), 'rate': row.rate, 'ratio': row.ratio}


if __name__ == '__main__':
  cli.run_main(main)
