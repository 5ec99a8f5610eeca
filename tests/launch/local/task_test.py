import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bmg.configs import schema
from bmg.launch.run import files
from tests.launch import processes
from tests.launch.processes import is_alive, wait_for

pytestmark = pytest.mark.system

_LIVE = """
heartbeat()
while True:
  time.sleep(0.1)
"""


class Task:
  """A task of fake actors, as a process."""

  def __init__(
    self,
    tmp_path,
    script,
    *,
    group='actor',
    index=1,
    addresses='book',
    environment=(),
  ):
    self.workdir = tmp_path / 'run'
    config = schema.to_dict(processes.small_config(num_actors=3))
    config['cluster']['actors_per_task'] = 2
    (tmp_path / 'config.json').write_text(json.dumps(config))
    path = tmp_path / 'actor.py'
    path.write_text(processes.FAKE_PREAMBLE + script)
    files.begin_launch(str(self.workdir))
    self.process = subprocess.Popen(
      [
        *(sys.executable, '-S', '-m', 'bmg.launch.local.task'),
        *(f'--workdir={self.workdir}', f'--group={group}'),
        *('--host=localhost', f'--addresses={addresses}'),
        *(f'--task_index={index}', '--', sys.executable, '-S', str(path)),
      ],
      env={
        **os.environ,
        'PYTHONPATH': str(processes.ROOT),
        'BMG_CONFIG_FILE': str(tmp_path / 'config.json'),
        **dict(environment),
      },
      stderr=subprocess.PIPE,
      text=True,
    )

  def state(self, index, group='actor'):
    return files.read_json(self.workdir / f'state/{group}-{index}.json', {})

  def await_running(self, *indices):
    return wait_for(
      lambda: (
        all(self.state(index).get('state') == 'running' for index in indices)
        and [self.state(index) for index in indices]
      )
    )


@pytest.fixture
def start(tmp_path):
  started = []

  def start(*args, **kwargs):
    started.append(Task(tmp_path, *args, **kwargs))
    return started[-1]

  yield start
  for task in started:
    task.process.kill()
    task.process.communicate()


def test_a_task_holds_its_share_of_the_actors(start):
  task = start(_LIVE, index=0)
  states = task.await_running(0, 1)
  task.process.terminate()
  assert task.process.wait(timeout=30) == 0
  assert not any(is_alive(state['pid']) for state in states)
  assert not task.state(2)


def test_the_last_task_holds_what_is_left(start):
  task = start(_LIVE, index=1)
  task.await_running(2)
  assert not task.state(3)


def test_a_task_too_many_says_so(start):
  task = start(_LIVE, index=2)
  assert task.process.wait(timeout=30) == 1
  assert 'actor has 2 tasks' in task.process.stderr.read()


def test_a_killed_supervisor_is_replaced(start):
  task = start(_LIVE)
  before = task.await_running(2)[0]
  os.kill(before['supervisor_pid'], signal.SIGKILL)
  wait_for(lambda: task.state(2).get('starts') == 2)
  after = task.await_running(2)[0]
  assert not is_alive(before['pid'])
  assert after['supervisor_pid'] != before['supervisor_pid']


def test_a_task_ends_with_its_launch(start):
  task = start(_LIVE)
  task.await_running(2)
  files.end_launch(str(task.workdir), files.FINISHED)
  assert task.process.wait(timeout=30) == 0
  assert task.state(2)['state'] == 'stopped'


def test_a_task_whose_actor_never_starts_fails(start):
  task = start("raise ImportError('nothing there')")
  assert task.process.wait(timeout=60) == 1
  assert task.state(2)['state'] == 'failed'


def test_no_orphans_of_a_killed_task(start):
  task = start(_LIVE)
  state = task.await_running(2)[0]
  task.process.kill()
  wait_for(lambda: not is_alive(state['pid']))
  wait_for(lambda: not is_alive(state['supervisor_pid']))


def test_nodes_are_deaf_to_what_slurm_sends_to_all(start):
  task = start(
    """
def stop(*_):
  print('saved')
  sys.exit(0)
signal.signal(signal.SIGUSR1, stop)
"""
    + _LIVE,
    environment={'SLURM_JOB_ID': '1'},
  )
  state = task.await_running(2)[0]
  os.kill(state['pid'], signal.SIGTERM)
  os.kill(state['pid'], signal.SIGUSR2)
  task.process.terminate()
  assert task.process.wait(timeout=30) == 0
  log = (task.workdir / 'logs' / 'actor-2.log').read_text()
  assert 'saved' in log
  assert task.state(2)['starts'] == 1


def test_the_learners_pod_ends_the_run_after_the_last_evaluation(start):
  task = start(_LIVE, group='learner', index=0, addresses='dns')
  wait_for(lambda: task.state(0, 'learner').get('state') == 'running')
  state = task.state(0, 'learner')
  files.write_json(files.finished(str(task.workdir)), {})
  time.sleep(1)
  assert task.process.poll() is None
  files.write_json(
    task.workdir / 'state' / 'evaluator-0.json', {'state': 'finished'}
  )
  assert task.process.wait(timeout=30) == 0
  assert not is_alive(state['pid'])
  assert files.launch_state(str(task.workdir)) == files.FINISHED
  assert files.read_submission(str(task.workdir)).backend == 'kubernetes'


def test_a_pod_follows_no_launch(start):
  task = start(_LIVE, index=1, addresses='dns')
  before = task.await_running(2)[0]
  files.end_launch(str(task.workdir), files.STOPPED)
  time.sleep(1.5)
  assert is_alive(before['pid'])
