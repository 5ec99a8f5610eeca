"""How many cells this machine takes at a time."""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psutil

from bmg.configs import schema

# Gigabytes of the processes of one run, measured on the recipes in configs/:
# each actor and the evaluator; the learner; replay without its frames.
_ACTING_GB = 0.8
_LEARNER_GB = 3.0
_REPLAY_GB = 0.5


class Machine(NamedTuple):
  """What there is for all cells together."""

  cores: int
  # Free now.
  memory_gb: float
  # Names of GPUs as CUDA knows them.
  gpus: tuple[str, ...] = ()
  # A TPU serves one process, which takes all of its chips.
  tpu: bool = False


def look(inherited: Mapping[str, str]) -> Machine:
  """Looks at this machine.

  Args:
    inherited: the environment, which may leave some of the GPUs out.
  """
  visible = inherited.get('CUDA_VISIBLE_DEVICES')
  gpus = sorted(
    path.name.removeprefix('nvidia')
    for path in pathlib.Path('/dev').glob('nvidia*')
    if re.fullmatch(r'nvidia\d+', path.name)
  )
  if visible is not None:
    gpus = [name.strip() for name in visible.split(',') if name.strip()]
  return Machine(
    cores=len(os.sched_getaffinity(0)),
    memory_gb=psutil.virtual_memory().available / 1e9,
    gpus=tuple(gpus),
    tpu=pathlib.Path('/dev/accel0').exists(),
  )


def max_running(configs: Sequence[schema.Config], machine: Machine) -> int:
  """Cells that run at a time: as many as cores, memory and devices suffice for.

  A cell takes a core for each emulator thread and one for the learner; memory
  for its processes and for the frames in its replay; and, where there are GPUs,
  `learner.num_devices` of them. One cell always runs.

  Args:
    configs: of each variant. As cells of any may come to run together, each is
      taken to need what the most demanding one does.
    machine: that they share.
  """
  bounds = [
    machine.cores // max(map(cores_of, configs)),
    int(machine.memory_gb // max(map(memory_gb_of, configs))),
  ]
  if machine.tpu:
    bounds.append(1)
  elif machine.gpus:
    bounds.append(len(machine.gpus) // _num_gpus(configs, machine))
  return max(1, min(bounds))


def cores_of(config: schema.Config) -> int:
  """Cores that one cell keeps busy."""
  return config.actors.num_actors * config.actors.env_threads + 1


def memory_gb_of(config: schema.Config) -> float:
  """Memory of one cell, in 10^9 bytes."""
  height, width, channels = config.env.frame_shape
  frames = config.actors.unroll_length + config.env.frame_stack
  unroll_gb = frames * height * width * channels / 1e9
  return (
    (config.actors.num_actors + 1) * _ACTING_GB
    + _LEARNER_GB
    + _REPLAY_GB
    + config.replay.replay_capacity * unroll_gb
  )


def slots(
  configs: Sequence[schema.Config], machine: Machine, count: int
) -> tuple[dict[str, str], ...]:
  """Returns the environment variables that share the machine among cells.

  Args:
    configs: of each variant.
    machine: that they share.
    count: cells that run at a time.
  """
  shares: list[dict[str, str]] = []
  for slot in range(count):
    share = {'BMG_CORES': str(max(1, machine.cores // count))}
    if machine.gpus:
      size = _num_gpus(configs, machine)
      # More cells than fit were asked for: they have to share.
      first = slot % (len(machine.gpus) // size) * size
      share['CUDA_VISIBLE_DEVICES'] = ','.join(
        machine.gpus[first : first + size]
      )
    shares.append(share)
  return tuple(shares)


def _num_gpus(configs: Sequence[schema.Config], machine: Machine) -> int:
  """GPUs of one cell; 0 in the configuration takes all."""
  present = len(machine.gpus)
  return max(min(c.learner.num_devices or present, present) for c in configs)
