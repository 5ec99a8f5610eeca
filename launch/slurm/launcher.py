"""Runs a program on Slurm: a core job, and a job array of actors.

The core job is the run: learner, replay and evaluator, stopped and saved before
its time is up, and queued again. Actors are tasks of an array of their own, on
another partition if that is wanted: they may start late, be preempted or lost,
and nobody else notices. All meet in the run's folder, which every node must see
at the same path.

docs/cluster.md describes it for users.
"""

import math
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence

import bmg
from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.run import backend, files, slurm_jobs, subprocesses, topology

_CORE_GROUPS = (topology.REPLAY, topology.LEARNER, topology.EVALUATOR)
# Announces that the core job's time is nearly up.
NOTICE = 'USR1'


def core_nodes(config: schema.Config) -> tuple[topology.NodeId, ...]:
  """Returns the nodes of the program that make up the core job."""
  return tuple(
    node
    for node in topology.nodes(schema.to_dict(config))
    if node.group in _CORE_GROUPS
  )


def core_script(config: schema.Config, workdir: str) -> str:
  """Returns the batch script of learner, replay and evaluator.

  Raises:
    ConfigError: they cannot be spread over `slurm.core_nodes`.
  """
  core = core_nodes(config)
  # Learner hosts on one node would fight for its devices.
  shared = (1,) if config.learner.num_hosts == 1 else ()
  checks.check(
    config.slurm.core_nodes in (*shared, len(core)),
    'slurm.core_nodes',
    config.slurm.core_nodes,
    f'must be {"1, or " if shared else ""}{len(core)} for '
    f'{", ".join(map(str, core))}',
  )
  resources = [getattr(config.cluster, node.group) for node in core]
  cpus = [each.cpus for each in resources]
  memory = [each.memory_gb for each in resources]
  spread = config.slurm.core_nodes > 1
  options = [
    f'--nodes={config.slurm.core_nodes}',
    f'--ntasks={config.slurm.core_nodes}',
    '--ntasks-per-node=1',
    f'--cpus-per-task={max(cpus) if spread else sum(cpus)}',
    _memory(max(memory) if spread else sum(memory)),
    *_accelerators(sum(each.accelerators for each in resources)),
    *_partition(config.slurm.partition),
    *_limit(config.cluster),
    f'--signal=B:{NOTICE}@{math.ceil(config.cluster.notice_s)}',
    *config.slurm.options,
  ]
  command = [
    _python(config),
    '-m',
    'bmg.launch.slurm.head',
    f'--workdir={workdir}',
  ]
  return _script('core', config, workdir, options, command)


def actors_script(config: schema.Config, workdir: str) -> str:
  """Returns the batch script of one task of the actors' array."""
  actor = config.cluster.actor
  # A relay is given what an actor is.
  per_task = config.cluster.actors_per_task + config.cluster.relays
  options = [
    f'--array=0-{_num_actor_tasks(config) - 1}',
    '--ntasks=1',
    f'--cpus-per-task={actor.cpus * per_task}',
    _memory(actor.memory_gb * per_task),
    *_accelerators(actor.accelerators * per_task),
    *_partition(config.slurm.actor_partition or config.slurm.partition),
    *_limit(config.cluster),
    *config.slurm.options,
    *config.slurm.actor_options,
  ]
  command = [
    *(
      _python(config),
      '-S',
      '-m',
      'bmg.launch.local.task',
      f'--workdir={workdir}',
    ),
    *(f'--group={topology.ACTOR}', '--follow_core_job', '--host=auto'),
  ]
  # The shell fills in the task's number, which `command` would quote.
  line = f'{shlex.join(command)} --task_index="$SLURM_ARRAY_TASK_ID"'
  return _script('actors', config, workdir, options, line)


class Slurm:
  """Submits both jobs, and cancels them."""

  period_s = 5.0

  def check(self, config: schema.Config, workdir: str) -> None:
    _scripts(config, workdir)

  def describe(self, config: schema.Config, workdir: str) -> str:
    scripts = _scripts(config, workdir)
    return '\n'.join(f'# {path}\n{text}' for path, text in scripts.items())

  def submit(self, config: schema.Config, workdir: str, lock_fd: int) -> int:
    workdir = os.path.abspath(workdir)
    self._check_not_running(workdir)
    # Actors that start first wait for the core job to begin the launch.
    files.end_launch(workdir, files.WAITING)
    jobs: list[str] = []
    try:
      for path, text in _scripts(config, workdir).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
        jobs.append(slurm_jobs.submit(path))
    except subprocesses.CommandError as error:
      for job in jobs:
        slurm_jobs.cancel(job)
      raise cli.UsageError(str(error)) from error
    core, actors = jobs
    files.write_json(
      files.jobs(workdir), {'core_job': core, 'actor_job': actors}
    )
    print(
      f'Submitted: job {core} (learner, replay, evaluator) and array '
      f'{actors} ({_num_actor_tasks(config)} tasks of actors).\n'
      f'  watch it: python -m bmg watch --workdir={workdir}\n'
      f'  stop it:  python -m bmg stop --workdir={workdir}'
    )
    return 0

  def state(self, workdir: str) -> backend.Status:
    # In this order, or a launch that ends in between would seem to be lost.
    try:
      jobs = {job: slurm_jobs.state(job) for job in _jobs(workdir).values()}
    except subprocesses.CommandError as error:
      state = files.launch_state(workdir)
      known = state in files.FINAL_STATES
      return backend.Status(state if known else backend.UNKNOWN, str(error))
    state = files.launch_state(workdir)
    there = [f'job {job} is {s.lower()}' for job, s in jobs.items() if s]
    if there:
      if state != files.WAITING:
        # Actors may take a while to leave.
        state = files.RUNNING
      return backend.Status(state, ', '.join(there))
    if state == files.RUNNING:
      return backend.Status(
        files.FAILED,
        "killed before all was saved: Slurm's KillWait gives a job too little "
        'time, or its node was lost',
      )
    if state == files.WAITING:
      return backend.Status(files.STOPPED, 'its jobs are not on Slurm')
    return backend.Status(state)

  def stop(self, workdir: str) -> None:
    # Tells the core job that it is not preempted.
    files.write_json(files.stop_request(workdir), {'time': time.time()})
    for job in _jobs(workdir).values():
      slurm_jobs.cancel(job)

  def _check_not_running(self, workdir: str) -> None:
    status = self.state(workdir)
    if status.state == backend.UNKNOWN:
      raise cli.UsageError(status.detail)
    if not status.is_over:
      raise cli.UsageError(
        f'--workdir={workdir}: its {status.detail} on Slurm; stop it first '
        f'(python -m bmg stop --workdir={workdir}), or take another'
      )


def _scripts(config: schema.Config, workdir: str) -> dict[pathlib.Path, str]:
  """Returns the batch scripts of core job and actors, by path."""
  workdir = os.path.abspath(workdir)
  return {
    _script_path(workdir, 'core'): core_script(config, workdir),
    _script_path(workdir, 'actors'): actors_script(config, workdir),
  }


def _jobs(workdir: str) -> dict[str, str]:
  jobs: dict[str, str] = files.read_json(files.jobs(workdir), {})
  return jobs


def step_prefix(config: schema.Config, node: topology.NodeId) -> list[str]:
  """Returns what puts a process of the core job on its own node and share."""
  resources = getattr(config.cluster, node.group)
  return [
    *('srun', '--nodes=1', '--ntasks=1', '--exact', '--unbuffered'),
    f'--relative={core_nodes(config).index(node)}',
    f'--cpus-per-task={resources.cpus}',
    _memory(resources.memory_gb),
    *(_accelerators(resources.accelerators) or ['--gpus=0']),
  ]


def _script(
  name: str,
  config: schema.Config,
  workdir: str,
  options: Sequence[str],
  command: Sequence[str] | str,
) -> str:
  slurm = config.slurm
  for part in (workdir, bmg.ROOT):
    checks.check(
      '%' not in part and '\n' not in part,
      'workdir',
      part,
      'must have neither % nor line breaks, which mean something to Slurm',
    )
  output = '%A-%a' if name == 'actors' else '%j'
  lines = [
    '#!/bin/sh',
    *(
      f'#SBATCH {option}'
      for option in (
        f'--job-name=bmg-{os.path.basename(workdir)}-{name}',
        f'--chdir={bmg.ROOT}',
        f'--output={workdir}/slurm/{name}-{output}.log',
        '--open-mode=append',
        '--requeue',
        *([f'--account={slurm.account}'] if slurm.account else []),
        *([f'--qos={slurm.qos}'] if slurm.qos else []),
        *([f'--constraint={slurm.constraint}'] if slurm.constraint else []),
        *options,
      )
    ),
    *([slurm.setup] if slurm.setup else []),
    f'PYTHONPATH={shlex.quote(bmg.ROOT)}"${{PYTHONPATH:+:$PYTHONPATH}}"',
    'export PYTHONPATH',
    f'exec {command if isinstance(command, str) else shlex.join(command)}',
  ]
  return '\n'.join(lines) + '\n'


def _num_actor_tasks(config: schema.Config) -> int:
  return topology.num_tasks(schema.to_dict(config), topology.ACTOR)


def _script_path(workdir: str, name: str) -> pathlib.Path:
  return pathlib.Path(workdir, 'slurm', f'{name}.sbatch')


def _python(config: schema.Config) -> str:
  return config.slurm.python or sys.executable


def _memory(gigabytes: float) -> str:
  return f'--mem={math.ceil(1024 * gigabytes)}M'


def _accelerators(count: int) -> list[str]:
  return [f'--gpus={count}'] if count else []


def _partition(name: str) -> list[str]:
  return [f'--partition={name}'] if name else []


def _limit(cluster: schema.Cluster) -> list[str]:
  minutes = cluster.time_limit_minutes
  return [f'--time={minutes}'] if minutes else []
