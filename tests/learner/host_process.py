"""One host of a learner as a process of its own, for `hosts_test`.

  python -m tests.learner.host_process '<Task as JSON>'

It ends as a node does: the error is its last line, its status is not 0.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import sys
import threading

import jax
import numpy as np

from bmg.configs import schema
from bmg.learner import hosts, prefetch, training
from bmg.learner import learner as learner_lib
from tests.learner import fakes


@dataclasses.dataclass(frozen=True)
class Task:
  """What a host does."""

  index: int
  address: str
  workdir: str
  # Overrides of `fakes.tiny_config`.
  config: dict
  # Training steps that were made before.
  first_step: int = 0
  # No more online unrolls after so many steps.
  starve_after: int = 10**9
  # Only puts batches on the devices, and writes where their unrolls came from.
  layout_only: bool = False
  join_timeout_s: float = 60.0


class ShareReader(fakes.FakeReader):
  """Reads a host's share of what `FakeReader` gives to one that is alone."""

  def __init__(self, config: schema.Config, task: Task):
    replay = config.replay
    extra = config.meta.num_bootstrap_batches * config.meta.bootstrap_batch
    super().__init__(
      config,
      task.first_step * replay.online_batch,
      task.first_step * (replay.replay_batch + extra),
    )
    self._task = task
    self._num_hosts = config.learner.num_hosts
    self._reads = 0

  def online(self, num_unrolls, stop, heartbeat):
    self._reads += 1
    while self._reads > self._task.starve_after and not stop.wait(0.01):
      heartbeat()
    return super().online(num_unrolls, stop, heartbeat)

  def replay(self, num_unrolls, stop, heartbeat):
    # The replayed part of the batch, then the one for the target.
    parts = [self._config.replay.replay_batch // self._num_hosts]
    parts.append(num_unrolls - parts[0])
    drawn = [self._read('replay', size) for size in parts if size]
    return jax.tree.map(lambda *x: np.concatenate(x), *drawn)

  def _read(self, table, num_unrolls):
    first = self._next[table]
    self._next[table] += num_unrolls * self._task.index
    unrolls = super()._read(table, num_unrolls)
    self._next[table] = first + num_unrolls * self._num_hosts
    return unrolls


def layout(config: schema.Config, task: Task) -> dict:
  """Returns where the unrolls of a batch went to: their numbers, as rewards."""

  class Numbered(ShareReader):
    def unroll(self, index):
      unroll = super().unroll(index)
      return unroll._replace(rewards=np.full_like(unroll.rewards, index))

  step = training.TrainStep(
    config, fakes.NUM_ACTIONS, learner_lib._devices(config)
  )
  feed = prefetch.Prefetcher(
    Numbered(config, task), config, step.put, lambda: None
  )
  own, bootstrap = feed.get(threading.Event()).batch
  feed.close()
  gathered = jax.jit(lambda x: x, out_shardings=step._replicated)(
    {
      'own': own.rewards[..., 0],
      'own_is_online': own.is_online,
      'bootstrap': bootstrap.rewards[..., 0],
      'bootstrap_is_online': bootstrap.is_online,
    }
  )
  num_devices = len(own.is_online.sharding.device_set)
  return {name: value.tolist() for name, value in gathered.items()} | {
    'num_devices': num_devices
  }


def train(
  config: schema.Config, task: Task, team: hosts.Hosts, stop: threading.Event
) -> None:
  """Learns until a stop, then writes the parameters."""
  reader = ShareReader(config, task)
  learner = learner_lib.Learner(
    config, task.workdir, reader, fakes.NUM_ACTIONS, team
  )

  def heartbeat() -> None:
    _path(task, 'updates').write_text(str(learner.get_parameters(-1)[0]))

  try:
    learner.run(stop, heartbeat)
  finally:
    # Where another host has died, the last step has left none.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      leaves = jax.tree.leaves(learner.get_parameters(-1)[2])
      params = np.concatenate([*map(np.ravel, leaves)])
      np.save(_path(task, 'params.npy'), params)


def _path(task: Task, name: str) -> pathlib.Path:
  return pathlib.Path(task.workdir, f'host{task.index}-{name}')


def main() -> None:
  task = Task(**json.loads(sys.argv[1]))
  config = fakes.tiny_config(**task.config)
  stop = threading.Event()
  signal.signal(signal.SIGTERM, lambda *_: stop.set())
  hosts._OTHERS_STOP_S = 1.0
  team = hosts.join(
    config.learner, task.index, task.address, task.join_timeout_s
  )
  if task.layout_only:
    layouts = []
    for num_devices in (1, 2):
      learner = dataclasses.replace(config.learner, num_devices=num_devices)
      config = dataclasses.replace(config, learner=learner)
      layouts.append(layout(config, task))
    _path(task, 'layouts').write_text(json.dumps(layouts))
    stop.set()
    team.leave(stop, lambda: None)
  else:
    train(config, task, team, stop)


if __name__ == '__main__':
  try:
    main()
  except Exception as error:
    print(f'{type(error).__name__}: {" ".join(str(error).split())}', flush=True)
    os._exit(1)
  sys.stdout.flush()
  os._exit(0)
