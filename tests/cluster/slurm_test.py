"""A real run on a real Slurm, of several nodes on this one machine."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from bmg.launch.run import files
from tests.cluster import slurm_cluster
from tests.launch import processes, system_test

pytestmark = [
  pytest.mark.system,
  pytest.mark.timeout(900),
  pytest.mark.skipif(
    bool(slurm_cluster.missing()),
    reason=f'there is no {", ".join(slurm_cluster.missing())} here '
    '(Debian: slurm-wlm, munge)',
  ),
]

_PLACES = (
  '--launcher=slurm',
  '--config.actors.num_actors=2',
  '--slurm.core_nodes=3',
  '--slurm.actor_partition=spot',
  '--cluster.learner.accelerators=0',
  '--config.num_frames=4000000',
)


@pytest.fixture
def cluster(tmp_path_factory):
  # Its sockets do not bear long paths.
  with slurm_cluster.SlurmCluster(tmp_path_factory.mktemp('slurm')) as cluster:
    yield cluster
    jobs = cluster.run('squeue', '-h', '-o', '%i').split()
    if jobs:
      cluster.run('scancel', '--full', '--signal=KILL', *jobs)
      processes.wait_for(lambda: not cluster.run('squeue', '-h'))


class Run:
  """A run in `workdir`, from the files that it writes there."""

  def __init__(self, workdir, cluster):
    self.workdir = workdir
    self._cluster = cluster

  def command(self, module, *arguments):
    return subprocess.run(
      [
        *(sys.executable, '-m', f'bmg.launch.commands.{module}', *arguments),
        f'--workdir={self.workdir}',
      ],
      cwd=processes.ROOT,
      env=self._cluster.environment,
      capture_output=True,
      text=True,
      timeout=300,
      check=False,
    )

  def submit(self, *arguments):
    done = self.command('train', *system_test.SMALL_RUN, *_PLACES, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(files.jobs(str(self.workdir)).read_text())

  def state(self, name):
    return files.read_json(self.workdir / f'state/{name}.json', {})

  def frames(self):
    try:
      rows = (self.workdir / 'learner.jsonl').read_text().splitlines()
    except FileNotFoundError:
      return 0
    return json.loads(rows[-1])['num_frames'] if rows else 0

  def await_progress(self):
    """Waits for some new rows of the learner's."""
    before = self.frames()
    processes.wait_for(lambda: self.frames() > before + 500, timeout_s=180)

  def kill(self, name):
    """Kills a node, and waits for its next life."""
    before = self.state(name)
    os.kill(before['pid'], signal.SIGKILL)
    processes.wait_for(
      lambda: (
        self.state(name)['starts'] > before['starts']
        and self.state(name)['state'] == 'running'
      ),
      timeout_s=120,
    )

  def is_over(self):
    return not self._cluster.run('squeue', '-h')

  def pids(self):
    states = [
      files.read_json(path, {})
      for path in (self.workdir / 'state').glob('*-*.json')
    ]
    return [
      pid
      for state in states
      for pid in (state.get('pid'), state.get('supervisor_pid'))
      if pid
    ]


def test_a_run_survives_what_a_cluster_does_to_it(tmp_path, cluster):
  run = Run(tmp_path / 'run', cluster)
  jobs = run.submit()
  run.await_progress()
  nodes = cluster.run('squeue', '-h', '-j', jobs['core_job'], '-o', '%N')
  assert nodes == 'n[1-3]'

  run.kill('actor-1')
  run.kill('learner-0')
  run.await_progress()

  # As when a node is lost, and when the time is up: the core moves, the actors
  # join it again.
  for number, command in (
    (2, ('scontrol', 'requeue')),
    (3, ('scancel', '--batch', '--signal=USR1')),
  ):
    cluster.run(*command, jobs['core_job'])
    processes.wait_for(
      lambda number=number: files.launch_number(str(run.workdir)) == number,
      timeout_s=120,
    )
    run.await_progress()
    assert run.state('actor-0')['state'] == 'running'

  # Again, while it runs: refused.
  again = run.command('train', *system_test.SMALL_RUN, *_PLACES)
  assert again.returncode == 2
  assert 'stop it first' in again.stderr

  pids = run.pids()
  stopped = run.command('stop')
  assert stopped.returncode == 0, stopped.stdout + stopped.stderr
  assert files.launch_state(str(run.workdir)) == files.STOPPED
  processes.wait_for(run.is_over)
  assert not any(processes.is_alive(pid) for pid in pids)
  last = run.frames()

  # To its end.
  run.submit(f'--config.num_frames={last + 2_000}')
  processes.wait_for(run.is_over, timeout_s=300)
  assert files.launch_state(str(run.workdir)) == files.FINISHED
  frames = pd.read_csv(run.workdir / 'learner.csv')['num_frames']
  assert frames.iloc[-1] >= last + 2_000
  assert frames.is_monotonic_increasing
  assert frames.is_unique


def test_actors_leave_a_core_job_that_was_cancelled(tmp_path, cluster):
  run = Run(tmp_path / 'run', cluster)
  jobs = run.submit('--cluster.patience_s=5')
  processes.wait_for(
    lambda: run.state('actor-0').get('state') == 'running', timeout_s=120
  )
  cluster.run('scancel', jobs['core_job'])
  # They first wait whether it comes back.
  processes.wait_for(run.is_over, timeout_s=120)
  assert (
    'leaving'
    in (run.workdir / 'slurm' / f'actors-{jobs["actor_job"]}-0.log').read_text()
  )
