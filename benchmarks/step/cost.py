"""Measures what meta-learning costs, in multiples of the plain update.

Usage: python -m bmg.benchmarks.step.cost --config=configs/atari_local.py
         [--config.<group>.<field>=...] [--variants=mg,bmg-L1] [--out=...]

docs/benchmarks.md says what the variants are and how to read the figures.
"""

import contextlib
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from bmg import engine
from bmg.actors import environment
from bmg.agents import types
from bmg.benchmarks.harness import command, roles
from bmg.configs import schema
from bmg.engine import mixed_mode
from bmg.launch import cli
from bmg.launch.run import provenance, topology

_PLAIN = 'none'
_NAIVE = 'naive-'


def _bootstrap(length: int, updates: int = 1) -> dict[str, Any]:
  return {
    'mode': 'bmg',
    'bootstrap_length': length,
    'inner_updates': updates,
  }


# Fields of `meta` in which each differs from the plain update.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
  'mg': {'mode': 'mg'},
  **{f'bmg-L{length}': _bootstrap(length) for length in (1, 2, 4, 8)},
  **{f'bmg-K{updates}': _bootstrap(1, updates) for updates in (2, 4)},
  **{f'{_NAIVE}K{updates}': _bootstrap(1, updates) for updates in (1, 2, 4)},
  'bmg-stride4': {**_bootstrap(1), 'matching_stride': 4},
  'bmg-between3': {**_bootstrap(1), 'updates_between': 3},
  'bmg-online-L4': {**_bootstrap(4), 'target_data': 'online'},
  'bmg-bfloat16': _bootstrap(1),
}
# The variant that is to have the same meta-gradient as a naive one.
_SAME = {'naive-K1': 'bmg-L1', 'naive-K2': 'bmg-K2', 'naive-K4': 'bmg-K4'}


@dataclasses.dataclass(frozen=True)
class Cost:
  """What one training step costs: a meta-step, or a plain update."""

  # Of the agent, in one training step.
  updates: int
  # XLA's count of floating-point operations, and its temporary buffers.
  flops: float
  temporary_bytes: int
  compile_seconds: float
  # Of each repeat, if there are any; and of a plain update just before it.
  seconds: Sequence[float]
  plain_seconds: Sequence[float]
  # Relative difference of the meta-gradient from the engine's; naive ones only.
  difference: float | None = None

  def ratios(self, plain: 'Cost') -> dict[str, float | None]:
    """Returns multiples of a plain update's, work per update of the agent.

    The time is None where there was no repeat.
    """
    times = [
      own / other
      for own, other in zip(self.seconds, self.plain_seconds, strict=True)
    ]
    return {
      'flops': self.flops / self.updates / plain.flops,
      'time': statistics.median(times) / self.updates if times else None,
      'memory': self.temporary_bytes / plain.temporary_bytes,
      'compile': self.compile_seconds / plain.compile_seconds,
    }


def configure(config: schema.Config, name: str) -> schema.Config:
  """Returns the configuration of a variant, or of the plain update.

  The extra batches of a target are as large as the agent's own, and the speed
  modes of `config` are off, so that one thing differs at a time.
  """
  settings = {
    'mode': _PLAIN,
    'inner_updates': 1,
    'updates_between': 0,
    'bootstrap_length': 1,
    'matching_stride': 1,
    'target_data': 'replay',
    'bootstrap_batch': config.replay.batch_size,
    **VARIANTS.get(name, {}),
  }
  meta = dataclasses.replace(config.meta, **settings)
  agent = config.agent
  if name == 'bmg-bfloat16':
    agent = dataclasses.replace(agent, torso_dtype='bfloat16')
  # A step's batches must fit; how much more there is room for does not matter.
  needed = meta.updates_per_step * config.replay.online_batch
  capacity = max(config.replay.online_capacity, needed)
  return dataclasses.replace(
    config,
    meta=meta,
    agent=agent,
    replay=dataclasses.replace(config.replay, online_capacity=capacity),
  )


class Step:
  """A compiled training step and what it works on."""

  def __init__(
    self,
    config: schema.Config,
    name: str,
    unrolls: Sequence[types.Unroll],
    num_actions: int,
  ):
    """Compiles it; runs nothing yet."""
    config = configure(config, name)
    self.updates = config.meta.updates_per_step
    naive = name.startswith(_NAIVE)
    with _naive_gradients() if naive else contextlib.nullcontext():
      step = roles.train_step(config, num_actions)
      self._batch = step.put(roles.train_batch(config, unrolls))
      self._state = step.init(config.seed)
      start = time.perf_counter()
      self._compiled = step.lower(self._state, self._batch).compile()
    self.compile_seconds = time.perf_counter() - start
    work: Any = self._compiled.cost_analysis()
    memory: Any = self._compiled.memory_analysis()
    self.flops: float = work['flops']
    self.temporary_bytes: int = memory.temp_size_in_bytes

  def first_meta_gradient(self) -> engine.PyTree:
    """Makes the first step, which warms up, too; returns its meta-gradient."""
    self.run()
    return jax.device_get(self._state.meta_gradient)

  def run(self) -> float:
    """Makes a step; returns the seconds that it took."""
    start = time.perf_counter()
    self._state, _ = jax.block_until_ready(
      self._compiled(self._state, self._batch)
    )
    return time.perf_counter() - start


@contextlib.contextmanager
def _naive_gradients() -> Iterator[None]:
  """Has updates made that are differentiated reverse over reverse."""

  def naive_gradient(
    loss: engine.Loss, rematerialize: bool
  ) -> Callable[..., tuple[engine.PyTree, engine.PyTree]]:
    del rematerialize  # That is one of the things which are not naive.

    def gradient(
      params: engine.PyTree, meta_params: engine.PyTree, batch: engine.PyTree
    ) -> tuple[engine.PyTree, engine.PyTree]:
      return jax.grad(loss, has_aux=True)(params, params, meta_params, batch)

    return gradient

  # All else is the training step of a run.
  with mock.patch.object(mixed_mode, 'gradient', naive_gradient):
    yield


def _difference(gradient: engine.PyTree, reference: engine.PyTree) -> float:
  """Largest difference of two pytrees of arrays, over the largest entry."""
  first, second = (
    np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    for tree in (gradient, reference)
  )
  return float(np.max(np.abs(first - second)) / np.max(np.abs(second)))


def main(argv: Sequence[str]) -> int:
  """Measures, prints and saves.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
  """
  flag_values = _define_flags()
  config = cli.parse_with_config(flag_values, argv)
  names = command.choose(
    'variants', command.value(flag_values, 'variants'), VARIANTS, 'variant'
  )
  repeats: int = command.value(flag_values, 'repeats')
  output = pathlib.Path(command.value(flag_values, 'out'))
  command.clean_up_on_sigterm()
  # As many threads as a run's learner has, and memory as it keeps it.
  command.take_environment(
    topology.LEARNER, config, 'bmg.benchmarks.step.cost', argv
  )
  # What is read from a cache takes no time to compile.
  jax.config.update('jax_enable_compilation_cache', False)
  console = Console()
  saved = {
    **provenance.describe(argv),
    'config': schema.to_dict(config),
  }
  # Better now than after all the measuring.
  command.save(output, saved)
  costs: dict[str, Cost] = {}
  for name, cost in _measure(config, names, repeats):
    costs[name] = cost
    saved['costs'] = {
      each: dataclasses.asdict(cost) | {'ratios': cost.ratios(costs[_PLAIN])}
      for each, cost in costs.items()
    }
    command.save(output, saved)
    console.print(f'{name} measured')
  for table in (costs_table(costs), steps_table(costs)):
    if table.row_count:
      console.print()
      console.print(table)
  console.print(f'\nSaved in {output}')
  return 0


def _measure(
  config: schema.Config, names: Sequence[str], repeats: int
) -> Iterator[tuple[str, Cost]]:
  """Yields the cost of the plain update, then of each variant."""
  num_actions = environment.num_actions(config.env)
  unrolls = roles.play(config, turn=0)
  plain = Step(config, _PLAIN, unrolls, num_actions)
  gradients = {}
  for name in (_PLAIN, *names):
    step = plain if name == _PLAIN else Step(config, name, unrolls, num_actions)
    if repeats:
      gradients[name] = step.first_meta_gradient()
    # One after the other, so that both find the machine in the same state.
    times = [(plain.run(), step.run()) for _ in range(repeats)]
    reference = gradients.get(_SAME.get(name, ''))
    yield (
      name,
      Cost(
        step.updates,
        step.flops,
        step.temporary_bytes,
        step.compile_seconds,
        seconds=[own for _, own in times],
        plain_seconds=[other for other, _ in times],
        difference=(
          None if reference is None else _difference(gradients[name], reference)
        ),
      ),
    )


def costs_table(costs: Mapping[str, Cost]) -> Table:
  """One line per variant, in multiples of the plain update."""
  plain = costs[_PLAIN]
  seconds = statistics.median(plain.seconds) if plain.seconds else None
  table = Table(
    'variant',
    *('FLOPs', 'time', 'memory', 'compilation', 'meta-gradient off by'),
    box=None,
    caption=(
      f'1 is {plain.flops / 1e9:.3g} GFLOP, '
      f'{"-" if seconds is None else f"{1e3 * seconds:.3g}"} ms, '
      f'{plain.temporary_bytes / 1e6:.3g} MB, '
      f'{plain.compile_seconds:.3g} s.'
    ),
  )
  for name, cost in costs.items():
    off = '-' if cost.difference is None else f'{cost.difference:.0e}'
    ratios = cost.ratios(plain).values()
    shown = ('-' if ratio is None else f'{ratio:.2f}' for ratio in ratios)
    table.add_row(name, *shown, off)
  return table


def steps_table(costs: Mapping[str, Cost]) -> Table:
  """What each further update of the target costs in plain updates."""
  table = Table('further target steps', 'FLOPs of each', box=None)
  plain = costs[_PLAIN].flops
  for first, last in ((1, 2), (2, 4), (4, 8)):
    names = [f'bmg-L{length}' for length in (first, last)]
    if all(name in costs for name in names):
      less, more = (costs[name].flops / plain for name in names)
      table.add_row(
        f'L = {first} to {last}', f'{(more - less) / (last - first):.3f}'
      )
  return table


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_list(
    'variants', list(VARIANTS), 'What to measure.', flag_values=flag_values
  )
  flags.DEFINE_integer(
    'repeats',
    7,
    'Timed steps per variant, and as many plain updates; medians count. '
    'With 0 nothing is run, only compiled.',
    lower_bound=0,
    flag_values=flag_values,
  )
  command.define_out(flag_values, 'cost.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
