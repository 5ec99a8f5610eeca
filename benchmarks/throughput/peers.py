"""Measures whole runs beside Sample Factory's, in turns, on this machine.

Usage: python -m bmg.benchmarks.throughput.peers --sample_factory_python=PATH
         [--config=configs/atari_nature.py] [--config.<group>.<field>=...]
         [--seconds=60] [--repeats=5] [--out=FILE]

docs/benchmarks.md says how to make that environment, and what is compared.
"""

import contextlib
import dataclasses
import datetime
import pathlib
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
from absl import flags
from rich.console import Console
from rich.table import Table

from bmg import errors
from bmg.benchmarks.harness import command, parts
from bmg.benchmarks.throughput import end_to_end
from bmg.configs import schema
from bmg.launch import cli

# From the first frames until the rate is counted, and until they come at all.
_WARM_UP_S = 15.0
_START_S = 120.0
_POLL_S = 0.5
# Sample Factory's best of the settings in docs/benchmarks.md, on two cores;
# network, frames and unroll are those of configs/atari_nature.py.
_SAMPLE_FACTORY = (
  '--device=cpu',
  '--rollout=20',
  '--num_workers=2',
  '--num_envs_per_worker=16',
  '--worker_num_splits=2',
  '--async_rl=True',
  '--batch_size=640',
  '--num_batches_per_epoch=1',
  '--num_epochs=1',
  '--normalize_input=False',
  '--normalize_returns=False',
)
_PROGRESS = re.compile(r'\[([-\d]+ [:\d]+),(\d+)\].* Total num frames: (\d+)')


@dataclasses.dataclass(frozen=True)
class Pair:
  """Emulator frames per second of two runs, one after the other."""

  own: float
  peer: float

  @property
  def ratio(self) -> float:
    """How many times the peer's rate."""
    return self.own / self.peer


def progress(text: str) -> list[tuple[float, int]]:
  """Returns the times, in seconds, and frames that Sample Factory printed."""
  return [
    (
      datetime.datetime.fromisoformat(moment).timestamp() + int(ms) / 1000,
      int(frames),
    )
    for moment, ms, frames in _PROGRESS.findall(text)
  ]


def rate(points: Sequence[tuple[float, int]], seconds: float) -> float | None:
  """Returns frames per second over a window that begins after a warm-up.

  Args:
    points: of `progress`.
    seconds: the least length of the window.

  Returns:
    None as long as there are too few points.
  """
  learning = [point for point in points if point[1] > 0]
  if not learning:
    return None
  begin = learning[0][0] + _WARM_UP_S
  window = [point for point in learning if point[0] >= begin]
  if not window or window[-1][0] - window[0][0] < seconds:
    return None
  (start, first), (end, last) = window[0], window[-1]
  return (last - first) / (end - start)


def measure_sample_factory(
  python: str,
  config: schema.Config,
  settings: Sequence[str],
  seconds: float,
  folder: str,
) -> float:
  """Runs Sample Factory's Atari example, and returns its frames per second.

  Args:
    python: an interpreter that has Sample Factory.
    config: whose game it plays.
    settings: flags of the example, after the ones of this benchmark.
    seconds: to measure for, when it has warmed up.
    folder: for its files; fresh.

  Raises:
    FatalError: it ends, or is not done in time.
    UsageError: `python` cannot be run.
  """
  game = config.env.game.replace('_', '')
  example = [
    *(python, '-m', 'sf_examples.atari.train_atari'),
    *(f'--env=atari_{game}', '--experiment=run', f'--train_dir={folder}'),
    *_SAMPLE_FACTORY,
    *settings,
  ]
  deadline = time.monotonic() + _START_S + 2 * (_WARM_UP_S + seconds)
  with contextlib.ExitStack() as stack:
    try:
      process = stack.enter_context(
        parts.start('sample_factory', example, None, {}, folder)
      )
    except OSError as error:
      raise cli.UsageError(
        f'--sample_factory_python={python}: cannot be run: {error.strerror}'
      ) from error
    stack.enter_context(_killing_children(process.popen.pid))
    while True:
      process.check()
      if (result := rate(progress(_read(process.log)), seconds)) is not None:
        return result
      if time.monotonic() > deadline:
        raise errors.FatalError(
          'Sample Factory shows too little progress; its last words:\n'
          f'{process.last_words()}'
        )
      time.sleep(_POLL_S)


def _read(path: pathlib.Path) -> str:
  return path.read_text(encoding='utf-8', errors='replace')


@contextlib.contextmanager
def _killing_children(pid: int) -> Iterator[None]:
  """Kills a process's descendants at the end: it would leave them behind."""
  try:
    yield
  finally:
    with contextlib.suppress(psutil.NoSuchProcess):
      children = psutil.Process(pid).children(recursive=True)
      for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
          child.kill()
      psutil.wait_procs(children, timeout=_POLL_S)


def main(argv: Sequence[str]) -> int:
  """Measures, prints and saves.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: a run fails.
  """
  flag_values = _define_flags()
  config = cli.parse_with_config(
    flag_values, command.with_recipe(argv, 'configs/atari_nature.py')
  )
  python = command.value(flag_values, 'sample_factory_python')
  if not python:
    raise cli.UsageError('--sample_factory_python=PATH must be given')
  seconds = command.value(flag_values, 'seconds')
  settings = command.value(flag_values, 'sample_factory')
  output = pathlib.Path(command.value(flag_values, 'out'))
  command.clean_up_on_sigterm()
  console = Console()
  saved = {
    **command.circumstances(argv, config, console),
    'sample_factory': [*_SAMPLE_FACTORY, *settings],
  }
  # Better now than after all the measuring.
  command.save(output, saved)
  arguments = [*command.run_arguments(flag_values), '--config.meta.mode=none']
  pairs: list[Pair] = []
  for _ in range(command.value(flag_values, 'repeats')):
    with tempfile.TemporaryDirectory(prefix='bmg-benchmark-') as folder:
      peer = measure_sample_factory(python, config, settings, seconds, folder)
    with tempfile.TemporaryDirectory(prefix='bmg-benchmark-') as folder:
      own = end_to_end.measure(arguments, config, seconds, 1, folder)
    pairs.append(Pair(own.frames_per_second, peer))
    command.save(output, {**saved, 'pairs': [_to_dict(p) for p in pairs]})
    console.print(
      f'BMG {pairs[-1].own:,.0f} frames/s, Sample Factory '
      f'{pairs[-1].peer:,.0f}: {pairs[-1].ratio:.2f} times'
    )
  console.print(_table(pairs))
  console.print(f'Saved in {output}')
  return 0


def _to_dict(pair: Pair) -> dict[str, Any]:
  return {**dataclasses.asdict(pair), 'ratio': pair.ratio}


def _table(pairs: Sequence[Pair]) -> Table:
  table = Table(title=f'Frames per second, medians of {len(pairs)} turns')
  for column in ('system', 'frames/s', 'times Sample Factory'):
    table.add_column(column, justify='left' if column == 'system' else 'right')
  ratio = statistics.median(pair.ratio for pair in pairs)
  own = statistics.median(pair.own for pair in pairs)
  peer = statistics.median(pair.peer for pair in pairs)
  table.add_row('BMG, mode=none', f'{own:,.0f}', f'{ratio:.2f}')
  table.add_row('Sample Factory', f'{peer:,.0f}', '1')
  return table


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'sample_factory_python',
    '',
    'Python interpreter that has Sample Factory and the game.',
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    'sample_factory',
    [],
    'Flags for Sample Factory, comma-separated: --batch_size=320,...',
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    'seconds', 60.0, 'Of each run, warm.', 1.0, flag_values=flag_values
  )
  flags.DEFINE_integer(
    'repeats', 5, 'Turns of both.', 1, flag_values=flag_values
  )
  command.define_out(flag_values, 'peers.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
