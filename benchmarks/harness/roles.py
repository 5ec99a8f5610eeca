"""The processes behind each part, with the very code of a run.

  python -m bmg.benchmarks.harness.roles task.json

Each process has the environment variables that `launch.local.environment` gives
to its group, so that it computes with as many threads as in a run.
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

import jax
import numpy as np
import psutil

from bmg.actors import actor, policy
from bmg.actors import environment as environment_lib
from bmg.agents import networks, seeding, types
from bmg.benchmarks.harness import measurement
from bmg.configs import schema
from bmg.launch.run import files

if TYPE_CHECKING:
  from bmg.learner import training


@dataclasses.dataclass(frozen=True)
class Task:
  """What one process is to do; travels as a JSON file."""

  role: str
  # As from `schema.to_dict`.
  config: Mapping[str, Any]
  seconds: float
  repeats: int
  # Where the result goes.
  output: str
  # Of the Reverb server.
  address: str = ''
  # Folder for a trace of what is measured; empty for none.
  profile: str = ''
  # Processes whose CPU time is measured along, by name.
  peers: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def meter(self) -> measurement.Meter:
    """Returns a meter for this process and its peers; its time runs."""
    if self.profile:
      jax.profiler.start_trace(self.profile)
    pids = {self.role: os.getpid(), **self.peers}
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    return measurement.Meter(
      self.seconds,
      self.repeats,
      functools.partial(measurement.cpu_seconds, processes),
    )


Windows = Sequence[measurement.Window]


def step_environment(config: schema.Config, task: Task) -> Windows:
  """The games of one actor alone, with random actions."""
  groups = _make_games(config)
  # Drawn beforehand, not to be part of what is measured.
  actions = np.random.default_rng(config.seed).integers(
    groups[0].num_actions,
    size=(config.actors.unroll_length, config.actors.games_per_group),
    dtype=np.int32,
  )
  for games in groups:
    games.reset()
  meter = task.meter()
  full = False
  while not full:
    for step_actions in actions:
      for games in groups:
        games.send(step_actions)
      for games in groups:
        games.receive()
    full = meter.add(_frames_per_turn(config))
  return meter.windows


def infer(config: schema.Config, task: Task) -> Windows:
  """An actor's inference alone, on what its games show at their beginning."""
  groups = _make_games(config)
  acting = policy.Policy(config, groups[0].num_actions, config.seed)
  params = jax.device_put(initial_params(config, groups[0].num_actions))
  first = groups[0].reset()
  shape = (config.actors.games_per_group, config.env.frame_stack)
  frames = np.zeros((*shape, *config.env.frame_shape), np.uint8)
  frames[:, -1], starts = first.frames, np.zeros(shape, bool)
  acting(params, frames, starts)
  num_calls = config.actors.unroll_length * len(groups)
  meter = task.meter()
  full = False
  while not full:
    for _ in range(num_calls):
      acting(params, frames, starts)
    full = meter.add(_frames_per_turn(config))
  return meter.windows


class _CountingWriter:
  """An `UnrollWriter` that takes everything at once, and counts it."""

  def __init__(self, config: schema.Config, task: Task):
    self._frames = _frames_per_turn(config)
    self._task = task
    # Starts with the first unroll, when all is compiled.
    self.meter: measurement.Meter | None = None

  def write(
    self,
    unrolls: Sequence[types.Unroll],
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> float:
    del unrolls, heartbeat
    if self.meter is None:
      self.meter = self._task.meter()
    elif self.meter.add(self._frames):
      stop.set()
    return 0.0


class _ConstantSource:
  """A `ParameterSource` whose parameters never change."""

  def __init__(self, params: types.Params):
    self._params = params

  def get_parameters(
    self, unless_version: int, /
  ) -> tuple[int, int, types.Params] | None:
    return None if unless_version == 0 else (0, 0, self._params)


def act(config: schema.Config, task: Task) -> Windows:
  """One actor: games and inference. Its unrolls are thrown away."""
  num_actions = environment_lib.num_actions(config.env)
  writer = _CountingWriter(config, task)
  actor.run_actor(
    config,
    actor_index=0,
    incarnation=0,
    writer=writer,
    source=_ConstantSource(initial_params(config, num_actions)),
    stop=threading.Event(),
    heartbeat=_no_heartbeat,
  )
  assert writer.meter is not None
  return writer.meter.windows


def write_replay(config: schema.Config, task: Task) -> Windows:
  """Writes a few unrolls of real games over and over, until it is killed."""
  from bmg.replay import writer as writer_lib

  turns = [play(config, turn) for turn in range(2)]
  writer = writer_lib.ReplayWriter(task.address, config)
  stop = threading.Event()
  insert_wait = 0.0
  start = time.monotonic()
  while True:
    for unrolls in turns:
      # As actors do, for the reader to see.
      carried = np.array(insert_wait, np.float32)
      waited = writer.write(
        [unroll._replace(insert_wait=carried) for unroll in unrolls],
        stop,
        _no_heartbeat,
      )
      last_start, start = start, time.monotonic()
      insert_wait = waited / (start - last_start)


def read_replay(config: schema.Config, task: Task) -> Windows:
  """Reads batches and puts them on the devices: the learner's prefetching."""
  from bmg.learner import prefetch
  from bmg.replay import reader as reader_lib

  num_actions = environment_lib.num_actions(config.env)
  feed = prefetch.Prefetcher(
    reader_lib.ReplayReader([task.address], config, num_actions),
    config,
    train_step(config, num_actions).put,
    _no_heartbeat,
  )
  stop = threading.Event()
  feed.get(stop)
  meter = task.meter()
  full = False
  while not full:
    item = feed.get(stop)
    assert item is not None
    full = meter.add(
      _frames_per_meta_update(config),
      float(item.statistics.insert_waits.mean()),
    )
  return meter.windows


def learn(config: schema.Config, task: Task) -> Windows:
  """The compiled training step alone, on a batch that is on the devices."""
  num_actions = environment_lib.num_actions(config.env)
  step = train_step(config, num_actions)
  batch = step.put(train_batch(config, play(config, turn=0)))
  state, metrics = step.step(step.init(config.seed), batch)
  jax.block_until_ready(metrics)
  meter = task.meter()
  full = False
  while not full:
    last_metrics = metrics
    state, metrics = step.step(state, batch)
    # Like the learner, a step behind, so that the devices never pause.
    jax.block_until_ready(last_metrics)
    full = meter.add(_frames_per_meta_update(config))
  return meter.windows


ROLES: Mapping[str, Callable[[schema.Config, Task], Windows]] = {
  'environment': step_environment,
  'inference': infer,
  'actor': act,
  'writer': write_replay,
  'reader': read_replay,
  'learner': learn,
}


def _frames_per_turn(config: schema.Config) -> int:
  """Emulator frames in one unroll of every game of an actor."""
  return config.actors.envs_per_actor * config.frames_per_unroll


def _frames_per_meta_update(config: schema.Config) -> int:
  return config.meta.updates_per_step * config.frames_per_update


def _no_heartbeat() -> None:
  """Nobody watches; the parent has a deadline."""


def _make_games(
  config: schema.Config, turn: int = 0
) -> list[environment_lib.AtariEnvironment]:
  """Returns the games of one actor; other ones each turn."""
  num_envs = config.actors.envs_per_actor
  seeds = seeding.derive_seeds(config.seed, 'actor', 0, turn, num_envs)
  return actor.make_games(config, seeds)


def initial_params(config: schema.Config, num_actions: int) -> types.Params:
  """Returns parameters that nothing has been learned into, as NumPy."""
  height, width, channels = config.env.frame_shape
  stack = np.zeros(
    (1, height, width, channels * config.env.frame_stack), np.uint8
  )
  network = networks.make_network(config.agent, num_actions)
  return jax.device_get(network.init(jax.random.key(config.seed), stack))


def play(config: schema.Config, turn: int) -> list[types.Unroll]:
  """Plays an unroll of each game, after the dull first ones."""
  groups = _make_games(config, turn)
  num_actions = groups[0].num_actions
  collector = actor.UnrollCollector(
    config, groups, policy.Policy(config, num_actions, turn)
  )
  params = initial_params(config, num_actions)
  for _ in range(3):
    unrolls = collector.collect(params, 0, 0, 0.0)
  return unrolls


def train_step(config: schema.Config, num_actions: int) -> 'training.TrainStep':
  """Returns the learner's training step, on its devices."""
  from bmg.learner import training

  devices = jax.local_devices()[: config.learner.num_devices or None]
  return training.TrainStep(config, num_actions, devices)


def train_batch(
  config: schema.Config, unrolls: Sequence[types.Unroll]
) -> 'training.TrainBatch':
  """Fills a batch with the unrolls of one turn, over and over."""
  from bmg.learner import training

  def stack(num_batches: int, size: int) -> types.Unroll:
    indices = np.arange(num_batches * size) % len(unrolls)
    return types.Unroll(
      *(
        np.stack(field)[indices].reshape(num_batches, size, *field[0].shape)
        for field in zip(*unrolls, strict=True)
      )
    )

  meta = config.meta
  return training.TrainBatch(
    own=stack(meta.updates_per_step, config.replay.batch_size),
    bootstrap=stack(meta.num_bootstrap_batches, meta.bootstrap_batch),
  )


def main(argv: Sequence[str]) -> None:
  """Does the task in the file that `argv` names."""
  with open(argv[1], encoding='utf-8') as file:
    task = Task(**json.load(file))
  windows = ROLES[task.role](schema.from_config_dict(task.config), task)
  if task.profile:
    jax.profiler.stop_trace()
  files.write_json(
    pathlib.Path(task.output),
    measurement.Result(tuple(windows)).to_dict(),
  )


if __name__ == '__main__':
  main(sys.argv)
  # Threads of Reverb's cannot be ended in order, see docs/replay.md.
  os._exit(0)
