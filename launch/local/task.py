"""One task of a cluster: the supervisors of some nodes, side by side.

  python -S -m bmg.launch.local.task --workdir=... --group=actor --task_index=3

A task of actors holds `cluster.actors_per_task` of them, any other task one
node. A supervisor that dies is replaced. Standard library only, as the
supervisors themselves.

On Slurm a core job begins and ends the launch that all tasks follow. In pods of
Kubernetes (--addresses=dns) nobody does: each goes its own way, and the
learner's ends, and with it the whole, once the last evaluation is done.
"""

import argparse
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from bmg.launch.program import address_book
from bmg.launch.run import files, slurm_jobs, subprocesses, topology

_POLL_S = 0.2
_CONFIG_TIMEOUT_S = 60.0
_RESTART_DELAY_S = 1.0
_MARGIN_S = 10.0
# Full games take long on few cores; the last evaluation gets this much time.
_LAST_EVALUATION_S = 900.0


class Task:
  """Keeps the supervisors of a task's nodes alive."""

  def __init__(self, args: argparse.Namespace) -> None:
    """Reads the configuration; starts nothing.

    Raises:
      SystemExit: there is no configuration, or no node for this task.
    """
    self._args = args
    self._config = _await_config(args.workdir)
    self._nodes = topology.task_nodes(self._config, args.group, args.task_index)
    if not self._nodes:
      count = topology.num_tasks(self._config, args.group)
      raise SystemExit(
        f'--task_index={args.task_index}: {args.group} has {count} tasks'
      )
    self._supervisors: dict[topology.NodeId, subprocess.Popen[bytes]] = {}
    self._next_start = dict.fromkeys(self._nodes, 0.0)
    self._stop_asked = False
    self._paused_since = math.inf
    self._finished_since = math.inf

  def ask_to_stop(self, *_: Any) -> None:
    """A signal handler: the rest happens in `run`."""
    self._stop_asked = True

  def run(self) -> int:
    """Runs until every node has ended for good, or a stop is asked for.

    Returns:
      0 where all nodes finished or stopped in order, else 1.
    """
    leads = self._args.addresses == address_book.DNS and (
      topology.NodeId(topology.LEARNER, 0) in self._nodes
    )
    if leads:
      # The submitter's record is not on the volume of the pods.
      files.write_submission(self._args.workdir, 'kubernetes')
      files.begin_launch(self._args.workdir)
    while not self._stop_asked and self._start_missing():
      if leads and self._is_finished():
        status = self._stop()
        files.end_launch(self._args.workdir, files.FINISHED)
        return status
      if self._args.follow_core_job and self._core_job_is_over():
        print('the core job is over: leaving', flush=True)
        break
      time.sleep(_POLL_S)
    return self._stop()

  def _start_missing(self) -> bool:
    """Starts supervisors that are not there; False where none is needed."""
    needed = False
    for node in self._nodes:
      supervisor = self._supervisors.get(node)
      if supervisor is not None:
        if supervisor.poll() is None:
          needed = True
          continue
        if self._state(node) in files.FINAL_STATES:
          continue
      needed = True
      if time.monotonic() >= self._next_start[node]:
        self._next_start[node] = time.monotonic() + _RESTART_DELAY_S
        self._supervisors[node] = self._start(node)
    return needed

  def _start(self, node: topology.NodeId) -> subprocess.Popen[bytes]:
    # What it said in an earlier task must not be taken for its last words.
    path = files.state(self._args.workdir, node)
    starts = files.read_json(path, {}).get('starts', 0)
    files.write_json(
      path, {'name': str(node), 'state': files.WAITING, 'starts': starts}
    )
    return subprocess.Popen(
      [
        *(sys.executable, '-S', '-m', 'bmg.launch.local.supervisor'),
        *(f'--workdir={self._args.workdir}', f'--group={node.group}'),
        *(f'--index={node.index}', f'--host={self._args.host}'),
        *(f'--parent_pid={os.getpid()}', '--', *self._args.command),
      ],
      stdin=subprocess.DEVNULL,
      env={**os.environ, 'BMG_ADDRESSES': self._args.addresses},
    )

  def _state(self, node: topology.NodeId) -> str:
    path = files.state(self._args.workdir, node)
    return files.read_json(path, {}).get('state', files.WAITING)

  def _is_finished(self) -> bool:
    """Whether all is learned and evaluated."""
    workdir = self._args.workdir
    if not files.finished(workdir).exists():
      return False
    now = time.monotonic()
    self._finished_since = min(self._finished_since, now)
    evaluator = self._state(topology.NodeId(topology.EVALUATOR, 0))
    return (
      evaluator in files.FINAL_STATES
      or now - self._finished_since > _LAST_EVALUATION_S
    )

  def _core_job_is_over(self) -> bool:
    """Whether the launch has paused, and Slurm will not go on with it."""
    workdir = self._args.workdir
    now = time.monotonic()
    if files.launch_state(workdir) != files.WAITING:
      self._paused_since = math.inf
      return False
    self._paused_since = min(self._paused_since, now)
    if now - self._paused_since < self._config['cluster']['patience_s']:
      return False
    self._paused_since = now
    job = files.read_json(files.jobs(workdir), {}).get('core_job')
    if job is None:
      return False
    try:
      return slurm_jobs.state(job) is None
    except subprocesses.CommandError as error:
      print(error, flush=True)
      return False

  def _stop(self) -> int:
    """Stops the supervisors, each of which gives its node time to save."""
    for supervisor in self._supervisors.values():
      if supervisor.poll() is None:
        supervisor.terminate()
    grace = 2 * self._config['launch']['grace_s'] + _MARGIN_S
    until = time.monotonic() + grace
    while any(each.poll() is None for each in self._supervisors.values()):
      if time.monotonic() > until:
        # Each node dies with its supervisor.
        for supervisor in self._supervisors.values():
          supervisor.kill()
          supervisor.wait()
        return 1
      time.sleep(_POLL_S)
    states = [self._state(node) for node in self._supervisors]
    return int(files.FAILED in states)


def _await_config(workdir: str) -> Any:
  """Reads the run's configuration, from where the task was given it."""
  path = files.config(workdir)
  given = os.environ.get('BMG_CONFIG_FILE')
  if given:
    files.write_json(path, files.read_json(pathlib.Path(given)))
  until = time.monotonic() + _CONFIG_TIMEOUT_S
  while (config := files.read_json(path)) is None:
    if time.monotonic() > until:
      raise SystemExit(f'{path} cannot be read after {_CONFIG_TIMEOUT_S:g} s')
    time.sleep(_POLL_S)
  return config


def main(argv: Sequence[str]) -> int:
  """Runs one task to its end; returns its exit status."""
  parser = argparse.ArgumentParser(prog='bmg.launch.local.task')
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--group', required=True, choices=tuple(topology.GROUPS))
  parser.add_argument('--task_index', required=True, type=int)
  parser.add_argument('--host', default=address_book.AUTO_HOST)
  parser.add_argument(
    '--addresses',
    default=address_book.BOOK,
    choices=(address_book.BOOK, address_book.DNS),
  )
  parser.add_argument('--follow_core_job', action='store_true')
  parser.add_argument('command', nargs='*')
  task = Task(parser.parse_args(argv))
  for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(sig, task.ask_to_stop)
  return task.run()


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
