"""Starts a real run, looks at it through its folder, stops it."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psutil

from bmg import errors
from bmg.benchmarks.harness import parts
from bmg.configs import schema
from bmg.launch.run import display, files, topology

_POLL_S = 0.02
# What was killed last may take a moment to go.
_VANISH_S = 5.0


class LiveRun:
  """What the launcher and the files of a run tell from moment to moment."""

  def __init__(self, launcher: parts.Process, workdir: str):
    self.launcher = launcher
    self.workdir = workdir

  def await_condition(
    self, condition: Callable[[], bool], patience_s: float
  ) -> None:
    """Waits until `condition`, which takes that something is learned, holds.

    Args:
      condition: looked at again and again.
      patience_s: how long it may take.

    Raises:
      FatalError: the launcher ended, or it took far too long.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
      self.launcher.check()
      if time.monotonic() > deadline:
        raise errors.FatalError(
          f'the run learned nothing for {patience_s:.0f} s; the launcher '
          f'says:\n{self.launcher.last_words()}'
        )
      time.sleep(_POLL_S)

  def row(self) -> Mapping[str, Any] | None:
    """The learner's newest row."""
    return display.last_row(pathlib.Path(self.workdir, 'learner.jsonl'))

  def pid(self, node: topology.NodeId) -> int | None:
    """Of a node that shows signs of life; None where it does not."""
    state = files.read_json(files.state(self.workdir, node), {})
    return state['pid'] if state.get('state') == files.RUNNING else None

  def newest_checkpoint(self) -> int:
    """The number of updates at which it was saved; 0 where there is none."""
    paths = pathlib.Path(self.workdir, 'checkpoints').glob('*')
    return max(
      (int(path.name) for path in paths if path.name.isdigit()), default=0
    )

  def finished_at(self) -> int | None:
    """The number of frames, once all of them are learned from."""
    finished = files.read_json(files.finished(self.workdir), {})
    return finished.get('num_frames')

  def log(self, node: topology.NodeId) -> bytes:
    """All that a node has printed so far, across its restarts."""
    try:
      return files.log(self.workdir, node).read_bytes()
    except OSError:
      return b''


@contextlib.contextmanager
def start(
  name: str,
  arguments: Sequence[str],
  config: schema.Config,
  workdir: str,
  folder: str,
) -> Iterator[LiveRun]:
  """Runs `bmg train`; stops it in order at the end, if it still runs.

  Args:
    name: of the launcher, for messages and for its log.
    arguments: the flags for `bmg train` that give `config`.
    config: of the run.
    workdir: the run's folder; resumed if it holds a run.
    folder: where the launcher's log goes.

  Raises:
    FatalError: it does not stop, or not in order.
  """
  command = [
    *(sys.executable, '-m', 'bmg.launch.commands.train'),
    *(*arguments, f'--workdir={workdir}'),
  ]
  with parts.start(name, command, None, {}, folder, signal.SIGTERM) as launcher:
    try:
      yield LiveRun(launcher, workdir)
    finally:
      if launcher.popen.poll() is None:
        stop(launcher, config)


def stop(
  launcher: parts.Process,
  config: schema.Config,
  sig: signal.Signals = signal.SIGTERM,
) -> None:
  """Stops the run in order, or at least stops waiting for it.

  Raises:
    FatalError: it does not stop, or not in order.
  """
  launcher.popen.send_signal(sig)
  # The launcher gives up by itself after two graces and a margin.
  timeout_s = 2 * config.launch.grace_s + 30
  try:
    exit_status = launcher.popen.wait(timeout_s)
  except subprocess.TimeoutExpired:
    raise errors.FatalError(
      f'the run did not stop within {timeout_s:.0f} s of {sig.name}'
    ) from None
  if exit_status != 0:
    raise errors.FatalError(
      f'the run did not stop in order: exit status {exit_status}; its last '
      f'words:\n{launcher.last_words()}'
    )


def find_orphans(folder: str) -> list[str]:
  """Returns the command lines of processes that belong to a run that is over.

  Those are all whose command line, environment or working directory names its
  folder, but for this process and those that it descends from.

  Args:
    folder: absolute.
  """
  own = {os.getpid(), *(each.pid for each in psutil.Process().parents())}
  found = [
    process
    for process in psutil.process_iter()
    if process.pid not in own and _names(process, folder)
  ]
  _, alive = psutil.wait_procs(found, timeout=_VANISH_S)
  return [_describe(process) for process in alive]


def _names(process: psutil.Process, folder: str) -> bool:
  try:
    known = process.as_dict(['cmdline', 'environ', 'cwd'])
  except psutil.NoSuchProcess:
    return False
  texts = [
    *(known['cmdline'] or ()),
    *(known['environ'] or {}).values(),
    known['cwd'] or '',
  ]
  return any(f'{folder}/' in f'{text}/' for text in texts)


def _describe(process: psutil.Process) -> str:
  try:
    return f'{process.pid}: {" ".join(process.cmdline())}'
  except psutil.Error:
    return str(process.pid)
