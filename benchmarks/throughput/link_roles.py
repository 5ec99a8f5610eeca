"""The processes at both ends of each link, with the very code of a run.

  python -m bmg.benchmarks.throughput.link_roles task.json

Each works until it is killed. Once all are under way, their parent sets the
times of the windows, and each records what it did in them.
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bmg.agents import types
from bmg.benchmarks.harness import roles
from bmg.benchmarks.throughput import traffic
from bmg.benchmarks.throughput.link_windows import Share
from bmg.configs import schema
from bmg.launch.run import files

if TYPE_CHECKING:
  from bmg.launch.program import nodes

# Games of which one unroll each is recorded.
NUM_RECORDED = 16


@dataclasses.dataclass(frozen=True)
class Task:
  """What one process is to do; travels as a JSON file."""

  role: str
  # Tells processes of one role apart.
  index: int
  # As from `schema.to_dict`.
  config: Mapping[str, Any]
  # Of the run, where its other files go, too.
  folder: str
  # The file of unrolls that are written again and again.
  recording: str
  # Of the servers that it may have to do with.
  addresses: Sequence[str] = ()
  # Writers in all, for the reader to know when everyone writes.
  num_writers: int = 1
  # Emulator frames/s of a writer; 0: as many as it can.
  frames_per_second: float = 0.0

  @property
  def name(self) -> str:
    """Of the process and its files."""
    return f'{self.role}-{self.index}'

  def path(self, kind: str) -> pathlib.Path:
    """A file of this process: 'task', 'ready' or 'shares'."""
    return pathlib.Path(self.folder, f'{self.name}.{kind}.json')


def schedule_path(folder: str) -> pathlib.Path:
  """The times, of the monotonic clock, that windows begin and end at."""
  return pathlib.Path(folder, 'schedule.json')


# Does a piece of work; returns how many unrolls, fetches or steps it was.
Turn = Callable[[], int]


def record(config: schema.Config, task: Task) -> None:
  """Plays the real games for a while, and saves an unroll of each."""
  # Which network chooses the actions matters little as long as it is untrained.
  agent = dataclasses.replace(config.agent, torso='small')
  actors = dataclasses.replace(config.actors, envs_per_actor=NUM_RECORDED)
  unrolls = roles.play(
    dataclasses.replace(config, agent=agent, actors=actors), turn=0
  )
  fields = zip(types.Unroll._fields, zip(*unrolls, strict=True), strict=True)
  np.savez(task.recording, **{name: np.stack(field) for name, field in fields})


def _recorded(path: str) -> list[types.Unroll]:
  with np.load(path) as file:
    fields = types.Unroll(*(file[name] for name in types.Unroll._fields))
  return [
    types.Unroll(*(field[i] for field in fields)) for i in range(NUM_RECORDED)
  ]


def write(config: schema.Config, task: Task) -> None:
  """An actor without games: writes recorded unrolls, as many as one turn's."""
  from bmg.replay import writer as writer_lib

  # The reader knows writers by this.
  run_id = np.array(task.index, np.int64)
  unrolls = [
    unroll._replace(actor_run_id=run_id) for unroll in _recorded(task.recording)
  ]
  per_turn = config.actors.envs_per_actor
  address = task.addresses[task.index % len(task.addresses)]
  token = files.token(task.folder)
  writer = writer_lib.ReplayWriter(address, config, token)
  stop = threading.Event()
  next_unroll = 0

  def turn() -> int:
    nonlocal next_unroll
    chosen = [
      unrolls[(next_unroll + i) % len(unrolls)] for i in range(per_turn)
    ]
    next_unroll += per_turn
    writer.write(chosen, stop, _no_heartbeat)
    return per_turn

  if task.frames_per_second:
    period_s = per_turn * config.frames_per_unroll / task.frames_per_second
    _work(task, turn, _pace(period_s, phase=task.index / task.num_writers))
  else:
    _work(task, turn)


def _pace(period_s: float, phase: float) -> Callable[[], None]:
  """Returns what waits for the next turn, like an actor that plays until then.

  Args:
    period_s: seconds from the beginning of one turn to the next, at least.
    phase: share of a period by which the first one is late, so that many do
      not write at the same moment.
  """
  due = time.monotonic() + phase * period_s

  def wait() -> None:
    nonlocal due
    now = time.monotonic()
    time.sleep(max(0.0, due - now))
    # Like an actor that had to wait for room, it does not catch up.
    due = max(due, now) + period_s

  return wait


def take(config: schema.Config, task: Task) -> None:
  """A learner that takes all new unrolls from the queue, and drops them."""
  reader = _reader(config, task)
  batch = config.replay.online_batch
  stop = threading.Event()
  writers: set[int] = set()

  def turn() -> int:
    unrolls = reader.online(batch, stop, _no_heartbeat)
    assert unrolls is not None
    writers.update(unrolls.actor_run_id.tolist())
    return batch

  while len(writers) < task.num_writers:
    turn()
  _work(task, turn)


def draw(config: schema.Config, task: Task) -> None:
  """A learner that draws batches from replay alone, which is full."""
  reader = _reader(config, task)
  stop = threading.Event()
  batch = config.replay.batch_size

  def turn() -> int:
    assert reader.replay(batch, stop, _no_heartbeat) is not None
    return batch

  _work(task, turn)


def _reader(config: schema.Config, task: Task) -> Any:
  from bmg.actors import environment
  from bmg.replay import reader as reader_lib

  num_actions = environment.num_actions(config.env)
  return reader_lib.ReplayReader(
    task.addresses, config, num_actions, files.token(task.folder)
  )


def fetch(config: schema.Config, task: Task) -> None:
  """An actor that does nothing but fetch the learner's parameters."""
  from bmg.actors import parameters

  client = _learner(config, task)

  def turn() -> int:
    while True:
      try:
        assert client.get_parameters(parameters.NO_VERSION) is not None
        return 1
      except TimeoutError:
        # The learner still starts; the parent has a deadline.
        pass

  _work(task, turn)


def ask(config: schema.Config, task: Task) -> None:
  """An actor without games, for which the learner chooses actions."""
  client = _learner(config, task)
  games = config.actors.games_per_group
  unrolls = _recorded(task.recording)
  chosen = [unrolls[i % len(unrolls)] for i in range(games)]
  seen = slice(config.env.frame_stack)
  frames = np.stack([unroll.frames[seen] for unroll in chosen])
  starts = np.stack([unroll.starts[seen] for unroll in chosen])

  def turn() -> int:
    while True:
      try:
        client.act(frames, starts)
        return games
      except TimeoutError:
        pass  # As in `fetch`; the first batch is compiled, too.

  _work(task, turn)


def _learner(config: schema.Config, task: Task) -> 'nodes.LearnerClient':
  from bmg.launch.program import nodes

  connect = functools.partial(
    nodes.connect, task.addresses[0], config.actors.parameter_timeout_s
  )
  return nodes.LearnerClient(connect, task.folder)


ROLES: Mapping[str, Callable[[schema.Config, Task], None]] = {
  'record': record,
  'writer': write,
  'taker': take,
  'drawer': draw,
  'client': fetch,
  'asker': ask,
}


def _no_heartbeat() -> None:
  """Nobody watches; the parent has a deadline."""


def _no_wait() -> None:
  """The next turn begins at once."""


def _work(task: Task, turn: Turn, wait: Callable[[], None] = _no_wait) -> None:
  """Takes turns for ever; records those that fall into the windows.

  Args:
    task: of this process.
    turn: does the work.
    wait: called before each turn; no part of it.
  """
  turn()
  files.write_json(task.path('ready'), True)
  schedule = schedule_path(task.folder)
  while (borders := files.read_json(schedule)) is None:
    wait()
    turn()
  shares = [_share(turn, wait, border) for border in borders]
  # What ends at the first border was the warm-up.
  files.write_json(
    task.path('shares'), [dataclasses.asdict(share) for share in shares[1:]]
  )
  while True:
    wait()
    turn()


def _share(turn: Turn, wait: Callable[[], None], until: float) -> Share:
  """Takes turns until a time of the monotonic clock."""
  count = 0
  turns = []
  before = traffic.so_far()
  start = end = time.monotonic()
  while end < until:
    wait()
    turn_start = time.monotonic()
    count += turn()
    end = time.monotonic()
    turns.append(end - turn_start)
  return Share(count, end - start, *traffic.so_far().since(before), turns=turns)


def read_shares(task: Task) -> list[Share]:
  """Returns what a process has recorded, by window."""
  return [Share(**share) for share in files.read_json(task.path('shares'))]


def main(argv: Sequence[str]) -> None:
  """Does the task in the file that `argv` names."""
  with open(argv[1], encoding='utf-8') as file:
    task = Task(**json.load(file))
  ROLES[task.role](schema.from_config_dict(task.config), task)


if __name__ == '__main__':
  main(sys.argv)
  # Threads of Reverb's cannot be ended in order, see docs/replay.md.
  os._exit(0)
