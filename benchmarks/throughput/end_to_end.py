"""Runs a real, short training with the real launcher, and watches it."""

import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil

from bmg import errors
from bmg.benchmarks.harness import live_run, measurement, parts
from bmg.configs import schema
from bmg.launch.run import display, files, topology

_POLL_S = 0.05
# For the processes to start, to compile, and to fill replay.
_START_S = 240.0
# For the first evaluation, which is that of the initial parameters.
_EVALUATION_S = 60.0

Row = Mapping[str, Any]


def measure(
  arguments: Sequence[str],
  config: schema.Config,
  seconds: float,
  repeats: int,
  folder: str,
) -> measurement.Result:
  """Measures all processes together, from the rows that the learner writes.

  The windows start when the learner learns and the first evaluation is over.

  Args:
    arguments: the flags for `bmg train` that give `config`, its period of
      logging apart.
    config: of the run.
    seconds: of one window: the learner's period of logging.
    repeats: number of windows.
    folder: for the run; fresh.

  Raises:
    FatalError: the run failed, ended before it was measured, or took too long.
  """
  workdir = os.path.join(folder, 'run')
  command = [
    *(sys.executable, '-m', 'bmg.launch.commands.train', *arguments),
    f'--config.learner.log_period_s={seconds}',
    f'--workdir={workdir}',
  ]
  with parts.start(
    'launcher', command, None, {}, folder, signal.SIGTERM
  ) as launcher:
    run = _Run(launcher, workdir)
    try:
      result = _watch(run, config, seconds, repeats)
    except psutil.NoSuchProcess as error:
      raise errors.FatalError(
        f'a node ended while it was measured: {error}'
      ) from error
    finally:
      live_run.stop(launcher, config)
  return result


def _watch(
  run: '_Run', config: schema.Config, seconds: float, repeats: int
) -> measurement.Result:
  rows = run.rows(max(_START_S, 3 * seconds))
  next(rows)
  run.await_evaluation()
  # The window in which the evaluation ended is the warm-up.
  row = next(rows)
  processes = run.processes(config)
  before = measurement.cpu_seconds(processes)
  windows = []
  for _ in range(repeats):
    last_row, row = row, next(rows)
    now = measurement.cpu_seconds(processes)
    windows.append(
      measurement.Window(
        row['num_frames'] - last_row['num_frames'],
        row['seconds'] - last_row['seconds'],
        {name: now[name] - before[name] for name in now},
        wait_data=row['wait_data'],
        wait_insert=row['wait_insert'],
      )
    )
    before = now
  peak_memory = {
    name: _peak_memory(process.pid) for name, process in processes.items()
  }
  return measurement.Result(tuple(windows), peak_memory)


class _Run:
  """A run under way, seen through its folder."""

  def __init__(self, launcher: parts.Process, workdir: str):
    self._launcher = launcher
    self._workdir = workdir

  def rows(self, patience_s: float) -> Iterator[Row]:
    """Yields the learner's rows as they are written, the newest first."""
    path = pathlib.Path(self._workdir, 'learner.jsonl')
    num_frames = 0
    while True:
      deadline = time.monotonic() + patience_s
      row = display.last_row(path)
      while row is None or row['num_frames'] == num_frames:
        self._launcher.check()
        if time.monotonic() > deadline:
          raise errors.FatalError(
            f'the learner wrote no row for {patience_s:.0f} s; the launcher '
            f'says:\n{self._launcher.last_words()}'
          )
        time.sleep(_POLL_S)
        row = display.last_row(path)
      num_frames = row['num_frames']
      yield row

  def await_evaluation(self) -> None:
    """Waits for the first evaluation, if that is not too long."""
    path = pathlib.Path(self._workdir, 'evaluation.jsonl')
    deadline = time.monotonic() + _EVALUATION_S
    while display.last_row(path) is None and time.monotonic() < deadline:
      self._launcher.check()
      time.sleep(_POLL_S)

  def processes(self, config: schema.Config) -> dict[str, psutil.Process]:
    """Returns the launcher and the process of each node, by name."""
    processes = {'launcher': psutil.Process(self._launcher.popen.pid)}
    for node in topology.nodes(schema.to_dict(config)):
      state = files.read_json(files.state(self._workdir, node))
      processes[str(node)] = psutil.Process(state['pid'])
    return processes


def _peak_memory(pid: int) -> int:
  """The most memory that a process has held since its start, in bytes."""
  for line in pathlib.Path(f'/proc/{pid}/status').read_text().splitlines():
    if line.startswith('VmHWM:'):
      return 1024 * int(line.split()[1])
  raise ProcessLookupError(pid)
