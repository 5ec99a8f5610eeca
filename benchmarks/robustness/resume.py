"""Measures how long a stopped run takes until it learns again.

Usage: python -m bmg.benchmarks.robustness.resume [--repeats=5] [--seconds=30]
         [--config=configs/atari_local.py] [--config.<field>=...] [--out=FILE]

docs/benchmarks.md says how to read the figures.
"""

import contextlib
import itertools
import pathlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from absl import flags
from rich.console import Console
from rich.table import Table

from bmg import errors
from bmg.benchmarks.harness import command, live_run, report
from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.run import topology

_LEARNER = topology.NodeId(topology.LEARNER, 0)
# The stages, each with what the learner logs at its end, if it does.
_LAUNCHER = 'launcher'
_LINES = {
  'imports': b'Initialising the training state',
  'restoring': b'Restored checkpoint',
  'compiling': b'Compiled it in',
}
_UPDATE = 'first update'
_STAGES = (_LAUNCHER, *_LINES, _UPDATE)
_TOTAL = 'all'
_STOP = 'stop before'
_PATIENCE_S = 600.0


def main(argv: Sequence[str]) -> int:
  """Measures, prints and saves.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: the run does not go on, or does not stop.
  """
  flag_values = _define_flags()
  cli.parse_with_config(flag_values, command.with_recipe(argv))
  # The learner then writes a row after its first update.
  defaults = {'learner.log_period_s': 0.1}
  arguments = command.run_arguments(flag_values, defaults)
  config = cli.parse_with_config(flags.FlagValues(), ['', *arguments])
  output = pathlib.Path(command.value(flag_values, 'out'))
  command.clean_up_on_sigterm()
  console = Console(soft_wrap=not sys.stdout.isatty())
  saved = command.circumstances(argv, config, console)
  # Better now than after all the measuring.
  command.save(output, saved)
  repeats: list[dict[str, float]] = []
  with tempfile.TemporaryDirectory(prefix='bmg-benchmark-') as folder:
    sessions = _Sessions(arguments, config, folder)
    saved['first_session_s'] = sessions.begin(
      command.value(flag_values, 'seconds')
    )
    console.print(f'session 1: {saved["first_session_s"]:.1f} s, a new run')
    for i in range(command.value(flag_values, 'repeats')):
      repeats.append(sessions.resume())
      command.save(output, {**saved, 'repeats': repeats})
      console.print(f'session {i + 2}: {repeats[-1][_TOTAL]:.1f} s')
  console.print()
  console.print(make_table(repeats))
  console.print(f'\nSaved in {output}')
  return 0


class _Sessions:
  """One run, which is stopped by Ctrl-C and resumed."""

  def __init__(
    self, arguments: Sequence[str], config: schema.Config, folder: str
  ):
    self._arguments = arguments
    self._config = config
    self._folder = folder
    # After the last stop: how long it took, frames saved, bytes of the log.
    self._stop_s = 0.0
    self._saved_frames = 0
    self._log_size = 0

  def begin(self, seconds: float) -> float:
    """Trains for so long after the first update, and stops.

    Args:
      seconds: of training.

    Returns:
      Seconds from the command to the first update.
    """
    begin = time.monotonic()
    with self._start() as run:
      run.await_condition(lambda: run.row() is not None, _PATIENCE_S)
      first_update_s = time.monotonic() - begin
      time.sleep(seconds)
      self._stop(run)
    return first_update_s

  def resume(self) -> dict[str, float]:
    """Goes on until something is learned, and stops.

    Returns:
      Seconds of each stage, of all of them, and of the stop before.

    Raises:
      FatalError: nothing is learned, or not from where it was saved.
    """
    stop_s, begin = self._stop_s, time.monotonic()
    with self._start() as run:
      ends: dict[str, float] = {}
      run.await_condition(lambda: self._note_ends(run, ends), _PATIENCE_S)
      self._stop(run)
    return {_STOP: stop_s, **stage_seconds(begin, ends)}

  def _start(self) -> contextlib.AbstractContextManager[live_run.LiveRun]:
    return live_run.start(
      'launcher',
      self._arguments,
      self._config,
      str(pathlib.Path(self._folder, 'run')),
      self._folder,
    )

  def _note_ends(self, run: live_run.LiveRun, ends: dict[str, float]) -> bool:
    """Notes which stages are over by now; True once all are."""
    # The row first: by then, the log has all lines.
    row = run.row()
    log = run.log(_LEARNER)[self._log_size :]
    is_over = {
      # Its supervisor writes a line as it starts the learner.
      _LAUNCHER: bool(log),
      **{stage: line in log for stage, line in _LINES.items()},
      _UPDATE: row is not None and row['num_frames'] > self._saved_frames,
    }
    for stage in _STAGES:
      if is_over[stage]:
        ends.setdefault(stage, time.monotonic())
    return _UPDATE in ends

  def _stop(self, run: live_run.LiveRun) -> None:
    begin = time.monotonic()
    live_run.stop(run.launcher, self._config, signal.SIGINT)
    self._stop_s = time.monotonic() - begin
    self._saved_frames = (
      run.newest_checkpoint() * self._config.frames_per_update
    )
    self._log_size = len(run.log(_LEARNER))


def stage_seconds(begin: float, ends: Mapping[str, float]) -> dict[str, float]:
  """Returns how long each stage took, and all of them.

  Args:
    begin: when the command was given.
    ends: when each stage was over.

  Raises:
    FatalError: a stage is missing.
  """
  missing = [stage for stage in _STAGES if stage not in ends]
  if missing:
    raise errors.FatalError(
      f'the learner learns, but its log lacks the end of: {", ".join(missing)}'
    )
  moments = [begin, *(ends[stage] for stage in _STAGES)]
  seconds = [after - before for before, after in itertools.pairwise(moments)]
  return {
    **dict(zip(_STAGES, seconds, strict=True)),
    _TOTAL: moments[-1] - begin,
  }


def make_table(repeats: Sequence[Mapping[str, float]]) -> Table:
  """The stages of a resumption, median and range over the repeats."""
  table = report.make_table('stage', 'median, s', 'least', 'most')
  for stage in (*_STAGES, _TOTAL, _STOP):
    values = [repeat[stage] for repeat in repeats]
    numbers = statistics.median(values), min(values), max(values)
    table.add_row(stage, *(f'{number:.1f}' for number in numbers))
  return table


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_integer(
    'repeats', 5, 'How often to resume.', 1, flag_values=flag_values
  )
  flags.DEFINE_float(
    'seconds',
    30.0,
    'Training before the first stop.',
    0.0,
    flag_values=flag_values,
  )
  command.define_out(flag_values, 'resume.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
