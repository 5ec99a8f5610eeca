"""Measures one link between processes of a run, with both of its ends."""

import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from bmg import errors
from bmg.benchmarks.harness import measurement, parts
from bmg.benchmarks.throughput import link_roles, link_windows
from bmg.configs import schema
from bmg.launch.run import files, topology

SERVER = 'server'
_WARM_UP_S = 2.0
# For so many processes to start, and replay to fill.
_START_S = 300.0
# For those that are in the middle of a turn when the last window ends.
_END_S = 60.0
_POLL_S = 0.1
# Unrolls: enough for draws that differ, and soon written.
_FULL_REPLAY = 200


class Link(NamedTuple):
  """What is measured of one link."""

  # The groups of servers that it takes; those of the last one are its own.
  servers: tuple[str, ...]
  # The role of as many processes as are asked for, and of one.
  many: str
  one: str | None
  # Roles that say what they did, the first what the link has sustained.
  counted: tuple[str, ...]
  # What passes over it.
  unit: str = 'unrolls'


_REPLAY = (topology.REPLAY,)
_LEARNER = (topology.REPLAY, topology.LEARNER)
_RELAY = (topology.REPLAY, topology.LEARNER, topology.RELAY)
LINKS = {
  'ingest': Link(_REPLAY, 'writer', 'taker', ('taker', 'writer')),
  'paced': Link(_REPLAY, 'writer', 'taker', ('taker', 'writer')),
  'feed': Link(_REPLAY, 'writer', 'drawer', ('drawer',)),
  'parameters': Link(_LEARNER, 'client', None, ('client',), 'fetches'),
  'relay': Link(_RELAY, 'client', None, ('client',), 'fetches'),
  'actions': Link(_LEARNER, 'asker', None, ('asker',), 'steps'),
}


class Settings(NamedTuple):
  """What all measurements of a command have in common."""

  config: schema.Config
  # Emulator frames/s of a paced writer.
  actor_rate: float
  # Of one window, and how many there are.
  seconds: float
  repeats: int
  # The file that `record` writes.
  recording: str


def record(settings: Settings, folder: str) -> None:
  """Plays the real games and saves an unroll of each.

  Args:
    settings: of the command.
    folder: for the files of the process; fresh.

  Raises:
    FatalError: that failed, or took far too long.
  """
  with _start(_task('record', settings, folder)) as process:
    parts.await_end(process, [process], time.monotonic() + _START_S)


def measure(
  name: str, count: int, settings: Settings, folder: str
) -> dict[str, Any]:
  """Measures a link.

  Args:
    name: a key of `LINKS`.
    count: of writers, or of clients.
    settings: of the command.
    folder: for the files of the processes; fresh.

  Returns:
    The summary, see `link_windows.summarize`, and what the server takes of its
    machine.

  Raises:
    FatalError: a process failed, or all of it took far too long.
  """
  link = LINKS[name]
  settings = settings._replace(config=_adapt(name, count, settings.config))
  parts.prepare_run(settings.config, folder)
  with contextlib.ExitStack() as stack:
    servers = {
      node: stack.enter_context(parts.start_node(node, settings.config, folder))
      for node in topology.nodes(schema.to_dict(settings.config))
      if node.group in link.servers
    }
    serving, addresses = zip(
      *(servers[node] for node in servers if node.group == link.servers[-1]),
      strict=True,
    )
    tasks = _tasks(name, count, settings, addresses, folder)
    by_role = {SERVER: list(serving)}
    for task in tasks:
      process = stack.enter_context(_start(task))
      by_role.setdefault(task.role, []).append(process)
    run = _Run(tasks, by_role, [process for process, _ in servers.values()])
    windows = run.windows(link.counted, settings.seconds, settings.repeats)
    return link_windows.summarize(windows, link.counted) | {
      'server': _size(serving[0].popen.pid)
    }


def _tasks(
  name: str,
  count: int,
  settings: Settings,
  addresses: Sequence[str],
  folder: str,
) -> list[link_roles.Task]:
  """Of the processes that are no servers."""
  link = LINKS[name]
  first = dataclasses.replace(
    _task(link.many, settings, folder),
    addresses=addresses,
    num_writers=count,
    frames_per_second=settings.actor_rate if name == 'paced' else 0.0,
  )
  tasks = [dataclasses.replace(first, index=index) for index in range(count)]
  if link.one is not None:
    tasks.append(dataclasses.replace(first, role=link.one))
  return tasks


def _adapt(name: str, count: int, config: schema.Config) -> schema.Config:
  """Makes the run one that has this link, with `count` at its busy end."""
  if name == 'feed':
    # Replay gives nothing before it is full, so that what it gives is all.
    return _with(
      config,
      'replay',
      replay_capacity=_FULL_REPLAY,
      min_replay_size=_FULL_REPLAY,
    )
  if name == 'relay':
    num_actors = config.actors.num_actors
    return _with(config, 'cluster', relays=True, actors_per_task=num_actors)
  if name == 'actions':
    return _with(config, 'actors', inference='learner', num_actors=count)
  return config


def _with(config: schema.Config, group: str, **fields: Any) -> schema.Config:
  changed = dataclasses.replace(getattr(config, group), **fields)
  return dataclasses.replace(config, **{group: changed})


def _task(role: str, settings: Settings, folder: str) -> link_roles.Task:
  config = schema.to_dict(settings.config)
  return link_roles.Task(role, 0, config, folder, settings.recording)


def _start(
  task: link_roles.Task,
) -> contextlib.AbstractContextManager[parts.Process]:
  files.write_json(task.path('task'), dataclasses.asdict(task))
  module = 'bmg.benchmarks.throughput.link_roles'
  command = [sys.executable, '-m', module, str(task.path('task'))]
  reads = task.role in ('taker', 'drawer')
  group = topology.LEARNER if reads else topology.ACTOR
  return parts.start(task.name, command, group, task.config, task.folder)


class _Run:
  """Processes at both ends of a link, under way."""

  def __init__(
    self,
    tasks: Sequence[link_roles.Task],
    by_role: Mapping[str, Sequence[parts.Process]],
    servers: Sequence[parts.Process],
  ):
    """Takes what it has to watch.

    Args:
      tasks: of the processes that are no servers.
      by_role: all processes whose CPU time counts.
      servers: all, those included that others only ask for.
    """
    self._tasks = tasks
    self._processes = {*servers, *itertools.chain(*by_role.values())}
    self._by_role = {
      role: {
        process.name: psutil.Process(process.popen.pid) for process in processes
      }
      for role, processes in by_role.items()
    }

  def windows(
    self, counted: Sequence[str], seconds: float, repeats: int
  ) -> list[link_windows.Window]:
    """Sets the windows once all are under way; returns what happened in them.

    Args:
      counted: roles of processes that say what they did.
      seconds: of a window.
      repeats: number of windows.
    """
    self._await_files('ready', self._tasks, _START_S)
    first = time.monotonic() + _WARM_UP_S
    borders = [first + i * seconds for i in range(repeats + 1)]
    folder = self._tasks[0].folder
    files.write_json(link_roles.schedule_path(folder), borders)
    readings = [self._read(border) for border in borders]
    counting = [task for task in self._tasks if task.role in counted]
    self._await_files('shares', counting, _END_S)
    shares: dict[str, list[list[link_windows.Share]]] = {}
    for task in counting:
      of_role = shares.setdefault(task.role, [])
      of_role.append(link_roles.read_shares(task))
    return [
      link_windows.Window(
        readings[i],
        readings[i + 1],
        {
          role: [each[i] for each in of_role]
          for role, of_role in shares.items()
        },
      )
      for i in range(repeats)
    ]

  def _await_files(
    self, kind: str, tasks: Sequence[link_roles.Task], patience_s: float
  ) -> None:
    """Waits until each of some processes has written its file."""
    deadline = time.monotonic() + patience_s
    for task in tasks:
      while not task.path(kind).exists():
        self._check()
        if time.monotonic() > deadline:
          raise errors.FatalError(
            f'the process {task.name!r} of the benchmark has not written '
            f'{task.path(kind).name} within {patience_s:.0f} s'
          )
        time.sleep(_POLL_S)

  def _read(self, when: float) -> link_windows.Reading:
    time.sleep(max(0.0, when - time.monotonic()))
    self._check()
    by_role = {
      role: sum(measurement.cpu_seconds(processes).values())
      for role, processes in self._by_role.items()
    }
    machine = psutil.cpu_times()
    idle = machine.idle + machine.iowait + machine.steal
    return link_windows.Reading(time.monotonic(), by_role, sum(machine) - idle)

  def _check(self) -> None:
    for process in self._processes:
      process.check()


def _size(pid: int) -> dict[str, int]:
  """What a server takes: bytes of memory, threads, open files and sockets."""
  process = psutil.Process(pid)
  return {
    'memory': process.memory_info().rss,
    'threads': process.num_threads(),
    'files': process.num_fds(),
  }
