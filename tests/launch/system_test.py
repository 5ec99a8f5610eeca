"""Real runs: Launchpad, Reverb, Atari, in real processes."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.launch import processes

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

_SMALL_RUN = (
  f'--config={processes.ROOT}/configs/atari_local.py',
  '--config.actors.num_actors=1',
  '--config.actors.envs_per_actor=4',
  '--config.actors.unroll_length=10',
  '--config.replay.online_batch=4',
  '--config.replay.online_capacity=8',
  '--config.replay.replay_batch=4',
  '--config.replay.min_replay_size=8',
  '--config.replay.checkpoint=true',
  '--config.evaluator.num_episodes=1',
  '--config.evaluator.num_envs=1',
  '--config.learner.log_period_s=1.0',
  '--config.learner.checkpoint_period_s=5.0',
  # No two episodes are to be waited for.
  '--config.env.max_episode_frames=800',
)


class Run:
  """`launch.train` as a process."""

  def __init__(self, workdir, *arguments):
    self.workdir = workdir
    self.process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'launch.train', *_SMALL_RUN, *arguments),
        f'--workdir={workdir}',
      ],
      cwd=processes.ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )

  def state(self, name):
    return json.loads((self.workdir / f'state/{name}.json').read_text())

  def pids(self):
    states = [
      json.loads(path.read_text())
      for path in (self.workdir / 'state').glob('*-0.json')
    ]
    return [state[key] for state in states for key in ('pid', 'supervisor_pid')]

  def rows(self):
    """Frame counts of the learner's rows."""
    try:
      text = (self.workdir / 'learner.jsonl').read_text()
    except FileNotFoundError:
      return []
    return [json.loads(line)['num_frames'] for line in text.splitlines()]

  def await_frames(self, above):
    """Waits for the learner to learn from more than `above` frames."""
    processes.wait_for(
      lambda: (
        self.process.poll() is not None or (self.rows() or [-1])[-1] > above
      ),
      timeout_s=120,
    )
    assert self.process.poll() is None, self.process.stdout.read()
    return self.rows()[-1]

  def kill_and_await(self, name):
    """Kills a node for the first time, and waits for its next life."""
    os.kill(self.state(name)['pid'], signal.SIGKILL)
    processes.wait_for(
      lambda: (
        self.state(name)['state'] == 'running'
        and self.state(name)['starts'] == 2
      ),
      timeout_s=120,
    )

  def checkpoints(self):
    folder = self.workdir / 'checkpoints'
    return {path.name for path in folder.glob('*') if path.name.isdigit()}

  def end(self):
    output, _ = self.process.communicate(timeout=200)
    return self.process.returncode, output


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp('run')


@pytest.fixture(scope='module')
def stopped_run(workdir):
  """A run that lost each of its processes once, and was stopped by Ctrl-C."""
  run = Run(workdir)
  try:
    num_frames = run.await_frames(above=0)
    for name in ('actor-0', 'replay-0', 'learner-0'):
      if name == 'learner-0':
        processes.wait_for(run.checkpoints, timeout_s=120)
      run.kill_and_await(name)
      # A learner goes back to its checkpoint, and then past where it was.
      num_frames = run.await_frames(above=num_frames)
    run.pids_at_stop = run.pids()
    os.killpg(run.process.pid, signal.SIGINT)
    run.status, run.output = run.end()
    yield run
  finally:
    run.process.kill()
    run.process.wait()


@pytest.fixture(scope='module')
def finished_run(stopped_run, workdir):
  """The same run, resumed and gone on with to its end."""
  frames_before = stopped_run.rows()[-1]
  run = Run(workdir, f'--config.num_frames={frames_before + 1600}')
  run.frames_before = frames_before
  try:
    run.status, run.output = run.end()
    yield run
  finally:
    run.process.kill()
    run.process.wait()


def test_every_killed_node_comes_back(stopped_run):
  for name in ('actor-0', 'replay-0', 'learner-0'):
    state = stopped_run.state(name)
    assert state['restarts'] == 1
    assert state['last_exit'] == 'killed by SIGKILL'


def test_ctrl_c_stops_in_order(stopped_run):
  assert stopped_run.status == 0, stopped_run.output
  assert not any(map(processes.is_alive, stopped_run.pids_at_stop))
  assert stopped_run.checkpoints()
  assert any((stopped_run.workdir / 'replay').iterdir())


def test_a_resumed_run_finishes(finished_run):
  assert finished_run.status == 0, finished_run.output
  assert 'Changed since the last start: num_frames' in finished_run.output
  assert 'Finished.' in finished_run.output
  assert finished_run.rows()[-1] >= finished_run.frames_before + 1600


def test_records_have_neither_gap_nor_repeat(finished_run):
  for path in ('learner.csv', 'evaluation.csv'):
    num_frames = pd.read_csv(finished_run.workdir / path)['num_frames']
    assert len(num_frames) > 1
    assert np.all(np.diff(num_frames) > 0)
  evaluated = pd.read_csv(finished_run.workdir / 'evaluation.csv')
  assert evaluated['num_frames'].iloc[-1] == finished_run.rows()[-1]


def test_a_checkpoint_can_be_evaluated(finished_run, tmp_path):
  result = subprocess.run(
    [
      *(sys.executable, '-m', 'launch.evaluate', '--num_episodes=2'),
      f'--workdir={finished_run.workdir}',
      f'--video={tmp_path / "game.gif"}',
    ],
    cwd=processes.ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == 0, result.stderr
  assert 'human-normalised' in result.stdout
  assert (tmp_path / 'game.gif').stat().st_size > 1000


def test_threads_run_the_same_program(tmp_path):
  run = Run(tmp_path / 'run', '--launcher=threads', '--config.num_frames=1600')
  try:
    status, output = run.end()
  finally:
    run.process.kill()
  assert status == 0, output
  assert 'Finished.' in output
  assert run.rows()[-1] >= 1600
