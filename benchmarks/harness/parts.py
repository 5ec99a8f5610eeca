"""Runs each part alone, in processes of its own."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from bmg import errors
from bmg.benchmarks.harness import measurement, roles
from bmg.configs import schema
from bmg.launch.local import environment as environment_lib
from bmg.launch.local import supervisor
from bmg.launch.program import address_book
from bmg.launch.run import files, topology

# What ends the benchmark, by a KeyboardInterrupt.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Imports and compilation come before the measurement.
_START_S = 240.0
_POLL_S = 0.1
_LAST_LINES = 5


def measure_alone(
  role: str,
  config: schema.Config,
  seconds: float,
  repeats: int,
  folder: str,
  profile: str = '',
) -> measurement.Result:
  """Measures a part that is one process.

  Args:
    role: a key of `roles.ROLES`, but for the writer and the reader.
    config: of the run.
    seconds: of one window.
    repeats: number of windows.
    folder: for the files of the process; fresh.
    profile: folder for a trace of it; empty for none.

  Raises:
    FatalError: the process failed or took far too long.
  """
  group = topology.LEARNER if role == 'learner' else topology.ACTOR
  task = _task(role, config, seconds, repeats, folder)
  task = dataclasses.replace(task, profile=profile)
  with start_role(task, group, folder) as process:
    await_end(process, [process], _deadline(seconds, repeats))
  return _result(task)


def measure_replay(
  config: schema.Config,
  seconds: float,
  repeats: int,
  folder: str,
  profile: str = '',
) -> measurement.Result:
  """Measures the run's own Reverb server, one actor's writer, the reader.

  Arguments and errors are those of `measure_alone`.
  """
  prepare_run(config, folder)
  task = _task('writer', config, seconds, repeats, folder)
  with contextlib.ExitStack() as stack:
    server, address = stack.enter_context(
      start_node(topology.NodeId(topology.REPLAY, 0), config, folder)
    )
    task = dataclasses.replace(task, address=address)
    writer = stack.enter_context(start_role(task, topology.ACTOR, folder))
    peers = {'server': server.popen.pid, 'writer': writer.popen.pid}
    task = dataclasses.replace(
      task, role='reader', peers=peers, profile=profile
    )
    reader = stack.enter_context(start_role(task, topology.LEARNER, folder))
    await_end(reader, [server, writer, reader], _deadline(seconds, repeats))
  return _result(task)


@dataclasses.dataclass(frozen=True)
class Process:
  """A process that was started, and the file with its output."""

  name: str
  popen: subprocess.Popen[bytes]
  log: pathlib.Path

  def check(self) -> None:
    """Raises `FatalError`, with its last words, if it has ended."""
    status = self.popen.poll()
    if status is not None:
      raise errors.FatalError(
        f'the process {self.name!r} of the benchmark ended: '
        f'{supervisor.describe_exit(status)}\n{self.last_words()}'
      )

  def last_words(self) -> str:
    """The end of its output."""
    text = self.log.read_text(encoding='utf-8', errors='replace')
    return '\n'.join(text.splitlines()[-_LAST_LINES:])


@contextlib.contextmanager
def start(
  name: str,
  command: Sequence[str],
  group: str | None,
  config: Mapping[str, object],
  folder: str,
  stop_signal: signal.Signals = signal.SIGKILL,
) -> Iterator[Process]:
  """Starts a process, which ends with this one; kills it at the end.

  Args:
    name: for messages and for its log.
    command: what to run.
    group: the run's group whose environment variables it gets, or None for
      those of this process.
    config: the run's configuration, as from `schema.to_dict`.
    folder: where its log goes.
    stop_signal: what it gets from the kernel if this process is killed.
  """
  log = pathlib.Path(folder, f'{name}.log')
  environment = dict(os.environ)
  if group is not None:
    environment = environment_lib.environment(group, config, os.environ)
  parent_pid = os.getpid()

  def prepare_child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    supervisor.die_with_parent(stop_signal, parent_pid)

  # A KeyboardInterrupt in the middle of the fork would be lost (Python ignores
  # what hooks at a fork raise), or lose us the child.
  signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
  try:
    with log.open('wb') as output:
      popen = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        # A terminal's Ctrl-C is for this process alone.
        start_new_session=True,
        preexec_fn=prepare_child,
      )
    try:
      signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
      yield Process(name, popen, log)
    finally:
      popen.kill()
      popen.wait()
  finally:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def prepare_run(config: schema.Config, folder: str) -> None:
  """Makes `folder` one of a run, whose servers have addresses of this machine.

  Raises:
    OSError: there is no free port.
  """
  values = schema.to_dict(config)
  files.write_json(files.config(folder), values)
  address_book.publish_local(folder, values)


@contextlib.contextmanager
def start_node(
  node: topology.NodeId, config: schema.Config, folder: str
) -> Iterator[tuple[Process, str]]:
  """Starts a node that serves, as in a run; see `start`.

  Args:
    node: of replay, learner or relays.
    config: of the run.
    folder: what `prepare_run` has prepared.

  Yields:
    The process and its address, host:port.
  """
  values = schema.to_dict(config)
  key = address_book.node_keys(values, node)[0]
  address = address_book.look_up(folder, key)
  assert address is not None
  command = [
    *(sys.executable, '-m', 'bmg.launch.program', f'--workdir={folder}'),
    *(f'--group={node.group}', f'--index={node.index}'),
  ]
  with start(str(node), command, node.group, values, folder) as process:
    yield process, address


def start_role(
  task: roles.Task, group: str, folder: str
) -> contextlib.AbstractContextManager[Process]:
  """Starts a process of `benchmarks.harness.roles`; see `start`."""
  path = pathlib.Path(folder, f'{task.role}.task.json')
  files.write_json(path, dataclasses.asdict(task))
  command = [sys.executable, '-m', 'bmg.benchmarks.harness.roles', str(path)]
  return start(task.role, command, group, task.config, folder)


def _task(
  role: str, config: schema.Config, seconds: float, repeats: int, folder: str
) -> roles.Task:
  return roles.Task(
    role,
    schema.to_dict(config),
    seconds,
    repeats,
    output=str(pathlib.Path(folder, 'result.json')),
  )


def _deadline(seconds: float, repeats: int) -> float:
  return time.monotonic() + _START_S + 3 * seconds * repeats


def await_end(
  process: Process, needed: Sequence[Process], deadline: float
) -> None:
  """Waits until `process` ends well; the others that it needs must live."""
  while process.popen.poll() != 0:
    for each in needed:
      each.check()
    if time.monotonic() > deadline:
      raise errors.FatalError(
        f'the process {process.name!r} of the benchmark is not done in time; '
        f'its last words:\n{process.last_words()}'
      )
    time.sleep(_POLL_S)


def _result(task: roles.Task) -> measurement.Result:
  return measurement.from_dict(files.read_json(pathlib.Path(task.output)))
