"""Compares ways of writing unrolls into Reverb, and of reading them.

Usage: python -m bmg.benchmarks.throughput.reverb_paths
         --config=configs/atari_local.py [--config.<group>.<field>=...]
         [--paths=write-unroll] [--out=...]

docs/benchmarks.md says what they are. It shows why `replay` is as it is, and is
the only module outside of it that knows Reverb.
"""

import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import connection
from typing import Any, NamedTuple

import numpy as np
import psutil
import reverb
from absl import flags
from reverb import structured_writer
from rich.console import Console
from rich.table import Table

from bmg import errors
from bmg.agents import types
from bmg.benchmarks.harness import command, measurement, report, roles
from bmg.launch import cli

_START_S = 120.0
# Unrolls of the table that is read, which is full, and of each queue.
_NUM_FULL = 100
_QUEUE = 24
# `client.sample` wants a number; this one lasts for ever.
_ENDLESS = 2**40
_SAMPLED = 'sampled'

# Does a turn's work; returns the number of unrolls.
Turn = Callable[[], int]


@dataclasses.dataclass(frozen=True)
class Data:
  """What is written and read: an unroll of each game, as actors make them."""

  address: str
  unrolls: Sequence[types.Unroll]
  batch_size: int

  @property
  def num_steps(self) -> int:
    """T."""
    return len(self.unrolls[0].actions)

  @property
  def num_frames(self) -> int:
    """T + S."""
    return len(self.unrolls[0].frames)

  def client(self) -> reverb.Client:
    """Of the server."""
    return reverb.Client(self.address)


class Cost(NamedTuple):
  """Of each window: unrolls per second, and CPU microseconds of each unroll."""

  rates: list[float]
  client: list[float]
  server: list[float]


def _tables(path: str) -> list[str]:
  """The queue and the replay table that a way of writing fills."""
  return [f'online-{path}', f'replay-{path}']


def _write_unroll(path: str, data: Data) -> Turn:
  """As `replay.writer`: an unroll is one step, to which two items refer."""
  writer = data.client().trajectory_writer(1, validate_items=False)

  def turn() -> int:
    for unroll in data.unrolls:
      writer.append(unroll)
      newest = types.Unroll(*(column[-1] for column in writer.history))
      for table in _tables(path):
        writer.create_item(table, priority=1.0, trajectory=newest)
    writer.flush()
    return len(data.unrolls)

  return turn


def _write_insert(path: str, data: Data) -> Turn:
  """By `client.insert`, which waits for each."""
  client = data.client()
  priorities = dict.fromkeys(_tables(path), 1.0)

  def turn() -> int:
    for unroll in data.unrolls:
      client.insert(unroll, priorities)
    return len(data.unrolls)

  return turn


class _Step(NamedTuple):
  """What a game's step adds to a stream; the rest of an unroll is small."""

  frame: Any
  start: Any
  action: Any
  reward: Any
  discount: Any
  logits: Any


def _steps(unroll: types.Unroll, data: Data) -> Iterator[_Step]:
  shown = data.num_frames - data.num_steps
  for t in range(data.num_steps):
    yield _Step(
      unroll.frames[shown + t],
      unroll.starts[shown + t],
      unroll.actions[t],
      unroll.rewards[t],
      unroll.discounts[t],
      unroll.behaviour_logits[t],
    )


def _last(steps: Any, data: Data) -> _Step:
  """The part of a stream's history that makes an unroll."""
  frames, others = data.num_frames, data.num_steps
  return _Step(
    *(column[-frames:] for column in steps[:2]),
    *(column[-others:] for column in steps[2:]),
  )


def _write_steps(path: str, data: Data, chunk_length: int = 0) -> Turn:
  """Step by step, each frame once; a writer for each game.

  Args:
    path: this way's name.
    data: what is written.
    chunk_length: steps that are compressed together; 0 for T.
  """
  writers = []
  for _ in data.unrolls:
    writer = data.client().trajectory_writer(
      data.num_frames, validate_items=False
    )
    for name in _Step._fields:
      writer.configure(
        (name,),
        num_keep_alive_refs=data.num_frames,
        max_chunk_length=chunk_length or data.num_steps,
      )
    writers.append(writer)

  def turn() -> int:
    for writer, unroll in zip(writers, data.unrolls, strict=True):
      for step in _steps(unroll, data):
        writer.append(step._asdict())
      history = _Step(**writer.history)
      # Not before there are frames enough for the first.
      if len(history.frame) >= data.num_frames:
        trajectory = _last(history, data)._asdict()
        for table in _tables(path):
          writer.create_item(table, priority=1.0, trajectory=trajectory)
    for writer in writers:
      writer.flush()
    return len(writers)

  return turn


def _write_structured(path: str, data: Data) -> Turn:
  """The same by structured writers, which know beforehand what an item is."""
  pattern = structured_writer.pattern_from_transform(
    _Step(*(None,) * len(_Step._fields)), lambda step: _last(step, data)
  )
  every = structured_writer.Condition.step_index() % data.num_steps
  configs = [
    structured_writer.create_config(
      pattern, table, [every == data.num_steps - 1]
    )
    for table in _tables(path)
  ]
  writers = [data.client().structured_writer(configs) for _ in data.unrolls]

  def turn() -> int:
    for writer, unroll in zip(writers, data.unrolls, strict=True):
      for step in _steps(unroll, data):
        writer.append(step)
    for writer in writers:
      writer.flush()
    return len(writers)

  return turn


def _read_endless(path: str, data: Data) -> Turn:
  """As `replay.table_reader`: one call of `client.sample` that never ends."""
  del path
  samples = data.client().sample(_SAMPLED, _ENDLESS, emit_timesteps=False)
  return lambda: _stack(samples, data.batch_size)


def _read_batches(path: str, data: Data) -> Turn:
  """A call of `client.sample` for each batch."""
  del path
  client, size = data.client(), data.batch_size
  return lambda: _stack(
    client.sample(_SAMPLED, size, emit_timesteps=False), size
  )


def _stack(samples: Iterator[Any], size: int) -> int:
  unrolls = [sample.data for sample in itertools.islice(samples, size)]
  for field in zip(*unrolls, strict=True):
    np.concatenate(field)
  return size


def _read_dataset(path: str, data: Data, in_flight: int) -> Turn:
  """TensorFlow's data set of trajectories, batched by it."""
  del path
  import tensorflow as tf

  fields = [np.asarray(field) for field in data.unrolls[0]]
  dataset = reverb.TrajectoryDataset(
    data.address,
    _SAMPLED,
    dtypes=[field.dtype for field in fields],
    shapes=[tf.TensorShape([1, *field.shape]) for field in fields],
    max_in_flight_samples_per_worker=in_flight,
  )
  batches = dataset.batch(data.batch_size).prefetch(1).as_numpy_iterator()

  def turn() -> int:
    next(batches)
    return data.batch_size

  return turn


WRITES: Mapping[str, Callable[[str, Data], Turn]] = {
  'write-unroll': _write_unroll,
  'write-insert': _write_insert,
  'write-steps-1': functools.partial(_write_steps, chunk_length=1),
  'write-steps': _write_steps,
  'write-structured': _write_structured,
}
READS: Mapping[str, Callable[[str, Data], Turn]] = {
  'read-endless': _read_endless,
  'read-batches': _read_batches,
  'read-dataset-1': functools.partial(_read_dataset, in_flight=1),
  'read-dataset-8': functools.partial(_read_dataset, in_flight=8),
}
PATHS = (*WRITES, *READS)


def _serve(pipe: connection.Connection) -> None:
  """Serves tables for all ways, until the other end is closed."""

  def table(name: str, size: int) -> reverb.Table:
    return reverb.Table(
      name,
      sampler=reverb.selectors.Uniform(),
      remover=reverb.selectors.Fifo(),
      max_size=size,
      rate_limiter=reverb.rate_limiters.MinSize(1),
    )

  tables = [table(_SAMPLED, _NUM_FULL)]
  for path in WRITES:
    online, replay = _tables(path)
    tables += [reverb.Table.queue(online, _QUEUE), table(replay, _NUM_FULL)]
  server = reverb.Server(tables)
  pipe.send(server.port)
  with contextlib.suppress(EOFError):
    pipe.recv()
  server.stop()


def _drain(address: str) -> None:
  """Takes all from every queue, like a learner, until it is killed."""

  def drain(table: str) -> None:
    client = reverb.Client(address)
    for _ in client.sample(table, _ENDLESS, emit_timesteps=False):
      pass

  threads = [
    threading.Thread(target=drain, args=(_tables(path)[0],)) for path in WRITES
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()


@contextlib.contextmanager
def _server() -> Iterator[tuple[str, psutil.Process]]:
  """Yields the address and the process of a server whose queues are drained.

  Raises:
    FatalError: it does not start.
  """
  context = multiprocessing.get_context('spawn')
  own, theirs = context.Pipe()
  server = context.Process(target=_serve, args=(theirs,), daemon=True)
  server.start()
  try:
    if not own.poll(_START_S):
      raise errors.FatalError(
        f'the Reverb server has not started within {_START_S:.0f} s'
      )
    address = f'localhost:{own.recv()}'
    drain = context.Process(target=_drain, args=(address,), daemon=True)
    drain.start()
    try:
      yield address, psutil.Process(server.pid)
    finally:
      drain.kill()
      drain.join()
  finally:
    server.kill()
    server.join()


def measure(
  path: str,
  data: Data,
  server: psutil.Process,
  seconds: float,
  repeats: int,
) -> Cost:
  """Measures one way.

  Args:
    path: one of `PATHS`.
    data: what is written and read.
    server: its process.
    seconds: of one window, after one of warm-up.
    repeats: number of windows.
  """
  cost = Cost([], [], [])
  processes = {'client': psutil.Process(), 'server': server}
  turn = {**WRITES, **READS}[path](path, data)
  for window in range(repeats + 1):
    count, start = 0, time.monotonic()
    before = measurement.cpu_seconds(processes)
    while (elapsed := time.monotonic() - start) < seconds:
      count += turn()
    after = measurement.cpu_seconds(processes)
    if window:
      cost.rates.append(count / elapsed)
      used = {name: after[name] - before[name] for name in processes}
      cost.client.append(1e6 * used['client'] / count)
      cost.server.append(1e6 * used['server'] / count)
  return cost


def make_table(costs: Mapping[str, Cost]) -> Table:
  """One line per way."""
  table = report.make_table(
    'way', 'unrolls/s', 'client, CPU us', 'server, CPU us', 'both'
  )
  for path, cost in costs.items():
    medians = [statistics.median(values) for values in cost]
    table.add_row(
      path, *(f'{each:,.0f}' for each in (*medians, sum(medians[1:])))
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
    FatalError: there is no server.
  """
  flag_values = _define_flags()
  config = cli.parse_with_config(flag_values, command.with_recipe(argv))
  paths = command.choose(
    'paths', command.value(flag_values, 'paths'), PATHS, 'way'
  )
  command.clean_up_on_sigterm()
  console = Console()
  output = pathlib.Path(command.value(flag_values, 'out'))
  saved = command.circumstances(argv, config, console)
  # Better now than after all the measuring.
  command.save(output, saved)
  unrolls = roles.play(config, turn=0)
  costs: dict[str, Cost] = {}
  with _server() as (address, server):
    data = Data(address, unrolls, config.replay.batch_size)
    for index in range(_NUM_FULL):
      unroll = unrolls[index % len(unrolls)]
      data.client().insert(unroll, {_SAMPLED: 1.0})
    for path in paths:
      costs[path] = measure(
        path,
        data,
        server,
        command.value(flag_values, 'seconds'),
        command.value(flag_values, 'repeats'),
      )
      console.print(f'{path}: {statistics.median(costs[path].rates):,.0f}/s')
      saved['paths'] = {name: each._asdict() for name, each in costs.items()}
      command.save(output, saved)
  console.print()
  console.print(make_table(costs))
  console.print(f'\nSaved in {output}')
  return 0


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_list(
    'paths', list(PATHS), 'What to measure.', flag_values=flag_values
  )
  command.define_windows(flag_values, seconds=3.0, repeats=3)
  command.define_out(flag_values, 'reverb_paths.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
