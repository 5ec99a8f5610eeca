"""Compares ways of computing the first layers of a plain torso.

Usage: python -m bmg.benchmarks.step.torso --config=configs/atari_nature.py
         [--config.agent.torso_dtype=bfloat16] [--states=168,1344] [--out=...]

docs/benchmarks.md says what they are.
"""

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from bmg.agents import compilation, networks
from bmg.benchmarks.harness import command
from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.run import topology

# Actions of the policy; a head is next to nothing.
_NUM_ACTIONS = 6
# Calls between two looks at the clock: an accelerator's queue fills meanwhile.
_CALLS = 10


def _strided(name: str, images: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """The torso as it is in papers: convolutions with strides."""
  layers, hidden, _ = networks._PLAIN_TORSOS[name]
  features = networks._to_unit_interval(images, dtype)
  for width, kernel, stride in layers:
    convolution = hk.Conv2D(width, kernel, stride, padding='VALID')
    features = jax.nn.relu(convolution(features))
  return jax.nn.relu(hk.Linear(hidden)(hk.Flatten()(features)))


# What replaces which function of `networks`, by name.
WAYS: Mapping[str, tuple[str, Callable[..., jax.Array]]] = {
  'strided': ('_torso', _strided),
  'bytes': ('_pixel_blocks', networks._move_bytes),
  'floats': ('_pixel_blocks', networks._move_floats),
}


@dataclasses.dataclass(frozen=True)
class Times:
  """Milliseconds of each repeat: a forward pass, and one with its gradient."""

  forward: list[float]
  gradient: list[float]


def measure(
  config: schema.Config, num_states: int, repeats: int
) -> dict[str, Times]:
  """Returns the times of each of `WAYS`, taken by turns.

  Args:
    config: of a run; its torso has no residual blocks.
    num_states: of a batch.
    repeats: how often each is timed, `_CALLS` calls at a time.
  """
  height, width, channels = config.env.frame_shape
  shape = (num_states, height, width, channels * config.env.frame_stack)
  random = np.random.default_rng(config.seed)
  images = jax.device_put(random.integers(256, size=shape, dtype=np.uint8))
  functions = {}
  for way, replacement in WAYS.items():
    with mock.patch.object(networks, *replacement):
      functions[way] = list(_compiled(config, images))
  times = {way: Times([], []) for way in WAYS}
  for _ in range(repeats):
    for way, (forward, gradient) in functions.items():
      times[way].forward.append(_milliseconds(forward))
      times[way].gradient.append(_milliseconds(gradient))
  return times


def _compiled(
  config: schema.Config, images: jax.Array
) -> Iterator[Callable[[], Any]]:
  """Yields the forward pass and the gradient of its sum, already warm."""
  network = networks.make_network(config.agent, _NUM_ACTIONS)
  params = network.init(jax.random.key(config.seed), images[:1])

  def forward(params: Any, images: jax.Array) -> jax.Array:
    return jnp.sum(network.apply(params, None, images).main.logits)

  options = compilation.compiler_options(jax.default_backend())
  for function in (forward, jax.grad(forward)):
    compiled = (
      jax.jit(function).lower(params, images).compile(compiler_options=options)
    )
    jax.block_until_ready(compiled(params, images))
    yield functools.partial(compiled, params, images)


def _milliseconds(function: Callable[[], Any]) -> float:
  start = time.perf_counter()
  for _ in range(_CALLS):
    result = function()
  jax.block_until_ready(result)
  return 1e3 * (time.perf_counter() - start) / _CALLS


def table(results: Mapping[str, Mapping[str, Times]]) -> Table:
  """One line per batch and way; ratios are to strides, of the same repeat."""
  table = Table(
    'states', 'way', *('forward, ms', 'x', 'with gradient, ms', 'x'), box=None
  )
  for states, times in results.items():
    for way, own in times.items():
      cells = []
      for name in ('forward', 'gradient'):
        values: list[float] = getattr(own, name)
        strided: list[float] = getattr(times['strided'], name)
        ratio = statistics.median(
          other / value for value, other in zip(values, strided, strict=True)
        )
        cells += [f'{statistics.median(values):.3f}', f'{ratio:.2f}']
      table.add_row(states, way, *cells)
  return table


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
  config = cli.parse_with_config(
    flag_values, command.with_recipe(argv, 'configs/atari_nature.py')
  )
  if config.agent.torso not in networks._PLAIN_TORSOS:
    raise cli.UsageError(
      f'config.agent.torso = {config.agent.torso!r}: has no strides to '
      f'compare; allowed: {", ".join(networks._PLAIN_TORSOS)}'
    )
  counts = command.whole_numbers(flag_values, 'states')
  # As many threads as a run's learner has, and memory as it keeps it.
  command.take_environment(
    topology.LEARNER, config, 'bmg.benchmarks.step.torso', argv
  )
  console = Console()
  output = pathlib.Path(command.value(flag_values, 'out'))
  saved = {
    **command.circumstances(argv, config, console),
    'device': jax.devices()[0].device_kind,
  }
  # Better now than after all the measuring.
  command.save(output, saved)
  results: dict[str, Mapping[str, Times]] = {}
  for count in counts:
    results[str(count)] = measure(
      config, count, command.value(flag_values, 'repeats')
    )
    saved['milliseconds'] = {
      states: {way: dataclasses.asdict(each) for way, each in times.items()}
      for states, times in results.items()
    }
    command.save(output, saved)
  console.print(table(results))
  console.print(f'\nSaved in {output}')
  return 0


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_list(
    'states',
    ['168', '1344'],
    'Sizes of batches.',
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'repeats',
    7,
    'How often each is timed; medians count.',
    lower_bound=1,
    flag_values=flag_values,
  )
  command.define_out(flag_values, 'torso.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
