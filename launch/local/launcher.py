"""Runs a program: one supervised process per node, here or beside this one."""

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, Protocol

from bmg.configs import schema
from bmg.launch.local import environment
from bmg.launch.program import address_book
from bmg.launch.run import files, topology

_POLL_S = 0.2
# Full games take long on few cores; the last evaluation gets this much time.
_LAST_EVALUATION_S = 900.0
_MARGIN_S = 10.0


class LaunchError(RuntimeError):
  """The run cannot start, for a reason that the user can mend."""


class Display(Protocol):
  """What shows the run's state to the user."""

  def update(self) -> None:
    """Called several times a second."""

  def say(self, message: str) -> None:
    """Shows a message of one or few lines, for good."""


@dataclasses.dataclass(frozen=True)
class Placement:
  """Which nodes a `LocalRun` starts, and where."""

  nodes: tuple[topology.NodeId, ...]
  # What the command of a node's supervisor is put behind, such as srun's.
  prefix: Callable[[topology.NodeId], Sequence[str]] = lambda node: ()
  # What asks a supervisor to stop, and gets through such a prefix to it.
  stop_signal: signal.Signals = signal.SIGTERM
  # What others reach the servers by.
  host: str = address_book.LOCAL_HOST
  # A signal that announces the end of the job: the launch goes on in another.
  notice: signal.Signals | None = None
  # Whether a SIGTERM is the scheduler's, unless the user has asked for a stop.
  is_scheduled: bool = False


class LocalRun:
  """Starts the supervisors of nodes, watches them, stops them."""

  def __init__(
    self,
    config: schema.Config,
    workdir: str,
    display: Display,
    lock_fd: int,
    node_command: Sequence[str] = (),
    placement: Placement | None = None,
  ) -> None:
    """Starts nothing.

    Args:
      config: the run's configuration, as saved in the run's folder.
      workdir: the run's folder.
      display: shows what goes on.
      lock_fd: file descriptor of the folder's `lock`.
      node_command: started in place of `launch.program`, for tests.
      placement: by default all nodes, on this machine.
    """
    self._config = config
    self._workdir = os.path.abspath(workdir)
    self._display = display
    self._lock_fd = lock_fd
    self._node_command = node_command
    self._placement = placement or Placement(
      topology.nodes(schema.to_dict(config))
    )
    self._nodes = self._placement.nodes
    self._supervisors: dict[topology.NodeId, subprocess.Popen[bytes]] = {}
    self._signals: list[int] = []

  def run(self) -> int:
    """Runs the program until it finishes, is stopped, or fails for good.

    SIGINT, SIGTERM and SIGHUP stop it in order. While it stops, a second one
    tells what is still going on and a third kills.

    Returns:
      0 where the run finished or was stopped, 1 where a node failed, 130 where
      the user had it killed.
    """
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if self._placement.notice is not None:
      signals.append(self._placement.notice)
    handlers = {
      sig: signal.signal(sig, lambda sig, _: self._signals.append(sig))
      for sig in signals
    }
    try:
      try:
        self._start()
        failure = self._watch()
      finally:
        killed = self._stop()
      status = self._conclude(failure, killed)
      files.end_launch(self._workdir, self._launch_state(failure, status))
      return status
    finally:
      for sig, handler in handlers.items():
        signal.signal(sig, handler)

  @property
  def was_interrupted(self) -> bool:
    """Whether the scheduler has ended this job, and not the user the run."""
    if files.stop_request(self._workdir).exists():
      return False
    by_scheduler = self._placement.is_scheduled and (
      signal.SIGTERM in self._signals
    )
    return by_scheduler or self.was_noticed

  @property
  def was_noticed(self) -> bool:
    """Whether the job was told that its time is nearly up."""
    return self._placement.notice in self._signals

  def _start(self) -> None:
    files.begin_launch(self._workdir)
    for node in self._nodes:
      path = files.state(self._workdir, node)
      starts = files.read_json(path, {}).get('starts', 0)
      files.write_json(
        path, {'name': str(node), 'state': 'waiting', 'starts': starts}
      )
    for node in self._nodes:
      self._supervisors[node] = self._start_supervisor(node)

  def _start_supervisor(self, node: topology.NodeId) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
      [
        *self._placement.prefix(node),
        sys.executable,
        '-S',
        '-m',
        'bmg.launch.local.supervisor',
        f'--workdir={self._workdir}',
        f'--group={node.group}',
        f'--index={node.index}',
        f'--host={self._placement.host}',
        *self._parent_flags(node),
        '--',
        *self._node_command,
      ],
      stdin=subprocess.DEVNULL,
      env={**os.environ, 'PYTHONPATH': environment.python_path(os.environ)},
      # A terminal's Ctrl-C reaches this process alone.
      start_new_session=True,
      # The folder stays locked until the last supervisor has gone, even if
      # this process is killed.
      pass_fds=(self._lock_fd,),
    )

  def _parent_flags(self, node: topology.NodeId) -> Sequence[str]:
    # Behind a prefix, the supervisor is another process's child.
    if self._placement.prefix(node):
      return ()
    return (f'--parent_pid={os.getpid()}',)

  def _watch(self) -> str | None:
    """Waits for a reason to stop.

    Returns:
      None where all is well, else what went wrong and where.
    """
    evaluate_until: float | None = None
    while not self._signals:
      self._display.update()
      for node, supervisor in self._supervisors.items():
        # Asked first: it writes its last state, then ends.
        ended = supervisor.poll() is not None
        state = self._state(node)['state']
        if state == files.FAILED:
          return self._describe_failure(node)
        if ended and state not in files.FINAL_STATES:
          return (
            f'{node}: its supervisor ended with status {supervisor.returncode}'
          )
      if files.finished(self._workdir).exists():
        if evaluate_until is None:
          self._display.say('All frames are learned; last evaluation ...')
          evaluate_until = time.monotonic() + _LAST_EVALUATION_S
        if self._evaluator_is_through():
          return None
        if time.monotonic() > evaluate_until:
          self._display.say(
            f'The last evaluation took over {_LAST_EVALUATION_S:g} s: given up.'
          )
          return None
      time.sleep(_POLL_S)
    return None

  def _evaluator_is_through(self) -> bool:
    state = self._state(topology.NodeId(topology.EVALUATOR, 0))
    return state['state'] in files.FINAL_STATES

  def _state(self, node: topology.NodeId) -> dict[str, Any]:
    return files.read_json(
      files.state(self._workdir, node), {'state': files.WAITING}
    )

  def _describe_failure(self, node: topology.NodeId) -> str:
    state = self._state(node)
    log = files.log(self._workdir, node)
    return (
      f'{node} failed for good ({state["last_exit"]}, '
      f'{state["restarts"]} restarts): {state["last_error"]}\n'
      f'  its log: {log}'
    )

  def _stop(self) -> bool:
    """Stops all nodes; waits for them, but not for ever.

    Supervisors keep the order among themselves, see `topology.GROUPS`.

    Returns:
      Whether supervisors had to be killed.
    """
    num_signals = len(self._signals)
    if num_signals:
      self._display.say(
        'Stopping: the learner saves its state. (Ctrl-C twice more to kill.)'
      )
    self._send(self._placement.stop_signal)
    # Replay waits for the learner's grace, then has its own.
    until = time.monotonic() + 2 * self._config.launch.grace_s + _MARGIN_S
    while alive := self._alive():
      self._display.update()
      if len(self._signals) > num_signals:
        num_signals = len(self._signals)
        names = ', '.join(str(node) for node in alive)
        self._display.say(f'Still stopping: {names}. Once more to kill.')
      if len(self._signals) > 2 or time.monotonic() > until:
        # Each node dies with its supervisor.
        self._send(signal.SIGKILL)
        for supervisor in self._supervisors.values():
          supervisor.wait()
        return True
      time.sleep(_POLL_S)
    return False

  def _alive(self) -> list[topology.NodeId]:
    return [
      node
      for node, supervisor in self._supervisors.items()
      if supervisor.poll() is None
    ]

  def _send(self, sig: int) -> None:
    for node in self._alive():
      self._supervisors[node].send_signal(sig)

  def _launch_state(self, failure: str | None, status: int) -> str:
    if failure is None and self.was_interrupted:
      # Even where not all was saved in time: the next job does what it can.
      return files.WAITING
    if status != 0:
      return files.FAILED
    if files.finished(self._workdir).exists():
      return files.FINISHED
    return files.STOPPED

  def _conclude(self, failure: str | None, killed: bool) -> int:
    """Says how the run ended; returns the exit status for it."""
    if killed:
      self._display.say('Killed before everything was saved.')
      return 130
    if failure is None:
      for node in self._nodes:
        restart_always = topology.GROUPS[node.group].restart_always
        state = self._state(node)['state']
        if not restart_always and state == files.FAILED:
          failure = self._describe_failure(node)
          break
    if failure is not None:
      self._display.say(f'error: {failure}')
      return 1
    finished = files.finished(self._workdir).exists()
    if finished:
      self._display.say('Finished.')
    else:
      self._display.say(
        'Interrupted; goes on in the next job.'
        if self.was_interrupted
        else 'Stopped.'
      )
    return 0


def in_use(workdir: str) -> bool:
  """Whether somebody holds `lock` on the folder, of a run or a sweep."""
  try:
    file = os.open(files.lock(workdir), os.O_RDONLY)
  except OSError:
    return False
  try:
    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except OSError:
    return True
  finally:
    os.close(file)
  return False


def lock(workdir: str) -> IO[str]:
  """Locks the run's folder until the file that is returned is closed.

  Raises:
    LaunchError: another run holds it, or the folder cannot be written to.
  """
  path = files.lock(workdir)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open('a+', encoding='utf-8')
  except OSError as error:
    raise LaunchError(
      f'--workdir={workdir}: cannot be written to: {error.strerror}'
    ) from error
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    file.seek(0)
    owner = file.read().strip() or 'unknown'
    file.close()
    raise LaunchError(
      f'{workdir} is in use by another run, with pid {owner} (or by nodes of '
      'it that are still stopping); stop it first, or take another --workdir'
    ) from None
  file.truncate(0)
  file.write(f'{os.getpid()}\n')
  file.flush()
  return file
