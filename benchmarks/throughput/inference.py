"""Measures central inference on this process's device, by number of actors.

Usage: python -m bmg.benchmarks.throughput.inference
         --config=configs/atari_nature.py [--config.<group>.<field>=...]
         [--actors=1,4,16,64] [--out=...]

docs/benchmarks.md says what is measured; `benchmarks.throughput.links` adds the
network.
"""

import contextlib
import dataclasses
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from bmg import errors
from bmg.actors import environment, inference, policy
from bmg.benchmarks.harness import command, report, roles
from bmg.configs import schema
from bmg.launch import cli

# The first call compiles.
_FIRST_ANSWER_S = 300.0


class Rates(NamedTuple):
  """Steps of games per second, in each window."""

  # The policy called directly, and by as many threads as there are actors.
  policy: list[float]
  server: list[float]


def measure(
  config: schema.Config, num_actors: int, seconds: float, repeats: int
) -> Rates:
  """Measures actors whose games cost nothing.

  Args:
    config: of the run; how many actors it has does not matter.
    num_actors: N.
    seconds: of one window.
    repeats: number of windows, by turns of either kind.

  Raises:
    FatalError: there were no actions.
  """
  actors = dataclasses.replace(config.actors, num_actors=num_actors)
  config = dataclasses.replace(config, actors=actors)
  num_actions = environment.num_actions(config.env)
  params = jax.device_put(roles.initial_params(config, num_actions))
  frames, starts = _observations(config)
  games = len(starts)

  alone = policy.Policy(config, num_actions, seed=config.seed)
  all_frames, all_starts = (
    np.concatenate([part] * num_actors) for part in (frames, starts)
  )

  def choose() -> int:
    alone(params, all_frames, all_starts)
    return len(all_starts)

  server = inference.InferenceServer(
    config, num_actions, incarnation=0, newest=lambda: (0, 0, params)
  )
  choose()
  rates = Rates([], [])
  with _asking(server, frames, starts, num_actors) as answers:
    for _ in range(repeats):
      answers.active.clear()
      rates.policy.append(_rate(choose, seconds))
      answers.active.set()
      rates.server.append(games * answers.rate(seconds))
  return rates


class _Answers:
  """How many answers each of N threads got."""

  def __init__(self, num_threads: int):
    self.counts = [0] * num_threads
    # Without it, all threads wait.
    self.active = threading.Event()
    # What ended one of them.
    self.error: Exception | None = None

  def rate(self, seconds: float) -> float:
    """Waits for so long, from the next answers; returns answers/s.

    Raises:
      FatalError: there are none.
    """
    before = sum(self.counts)
    deadline = time.monotonic() + _FIRST_ANSWER_S
    while sum(self.counts) < before + len(self.counts):
      self._check()
      if time.monotonic() > deadline:
        raise errors.FatalError(
          f'the server has not answered within {_FIRST_ANSWER_S:.0f} s'
        )
      time.sleep(0.01)
    before, start = sum(self.counts), time.perf_counter()
    time.sleep(seconds)
    self._check()
    return (sum(self.counts) - before) / (time.perf_counter() - start)

  def _check(self) -> None:
    if self.error is not None:
      raise errors.FatalError(
        f'an actor has got no answer: {self.error}'
      ) from self.error


@contextlib.contextmanager
def _asking(
  server: inference.InferenceServer,
  frames: np.ndarray,
  starts: np.ndarray,
  num_threads: int,
) -> Iterator[_Answers]:
  """Has threads ask for actions all the time, like Courier's on the learner."""
  answers = _Answers(num_threads)
  stop = threading.Event()

  def ask(index: int) -> None:
    try:
      while not stop.is_set():
        answers.active.wait()
        server.act(frames, starts)
        answers.counts[index] += 1
    except Exception as error:
      answers.error = error

  threads = [
    threading.Thread(target=ask, args=(index,), daemon=True)
    for index in range(num_threads)
  ]
  for thread in threads:
    thread.start()
  try:
    yield answers
  finally:
    stop.set()
    answers.active.set()
    for thread in threads:
      thread.join(timeout=_FIRST_ANSWER_S)


def _rate(turn: Callable[[], int], seconds: float) -> float:
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < seconds:
    count += turn()
  return count / elapsed


def _observations(config: schema.Config) -> tuple[np.ndarray, np.ndarray]:
  """What E games of an actor show: uint8 [E, S, H, W, C], bool [E, S]."""
  shape = (config.actors.games_per_group, config.env.frame_stack)
  random = np.random.default_rng(config.seed)
  frames = random.integers(
    256, size=(*shape, *config.env.frame_shape), dtype=np.uint8
  )
  return frames, np.zeros(shape, bool)


def table(results: Mapping[int, Rates]) -> Table:
  """One line per number of actors."""
  table = report.make_table(
    'actors', 'policy, steps/s', 'server, steps/s', 'server / policy'
  )
  for num_actors, rates in results.items():
    ratios = [
      server / alone
      for server, alone in zip(rates.server, rates.policy, strict=True)
    ]
    table.add_row(
      str(num_actors),
      f'{statistics.median(rates.policy):,.0f}',
      f'{statistics.median(rates.server):,.0f}',
      f'{statistics.median(ratios):.2f}',
    )
  return table


def main(argv: Sequence[str]) -> int:
  """Measures, prints and saves.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: there were no actions.
  """
  flag_values = _define_flags()
  config = cli.parse_with_config(flag_values, argv)
  counts = command.whole_numbers(flag_values, 'actors')
  console = Console()
  output = pathlib.Path(command.value(flag_values, 'out'))
  (device, *_) = jax.devices()
  rates: dict[str, Any] = {}
  saved = {
    **command.circumstances(argv, config, console),
    'device': device.device_kind,
    'steps_per_second': rates,
  }
  # Better now than after all the measuring.
  command.save(output, saved)
  results = {}
  for count in counts:
    results[count] = measure(
      config,
      count,
      command.value(flag_values, 'seconds'),
      command.value(flag_values, 'repeats'),
    )
    rates[str(count)] = results[count]._asdict()
    command.save(output, saved)
    console.print(f'{count} actors measured')
  console.print(f'\nOn {device.device_kind}:')
  console.print(table(results))
  console.print(f'\nSaved in {output}')
  return 0


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_list(
    'actors',
    ['1', '4', '16', '64'],
    'Numbers of actors.',
    flag_values=flag_values,
  )
  command.define_windows(flag_values, seconds=2.0, repeats=5)
  command.define_out(flag_values, 'inference.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
