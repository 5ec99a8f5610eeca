"""Real runs: Launchpad, Reverb, Atari, in real processes."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from bmg.learner import checkpoints
from tests.launch import processes

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

SMALL_RUN = (
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

# Starts a command as most shells would, but with far fewer files.
_FEW_FILES = ('sh', '-c', 'ulimit -S -n 256 && exec "$@"', 'sh')

# Has room for one checkpoint of `SMALL_RUN`, but not for all that it keeps.
_SMALL_DISK = '3m'


class Run:
  """`bmg train` as a process; a context manager, which leaves none behind.

  Attributes:
    workdir: the run's folder.
    process: the launcher.
    status, output: of the launcher, once it has ended.
  """

  def __init__(self, workdir, *arguments, wrapper=()):
    self.workdir = workdir
    self.process = subprocess.Popen(
      [
        *wrapper,
        *(
          sys.executable,
          '-m',
          'bmg.launch.commands.train',
          *SMALL_RUN,
          *arguments,
        ),
        f'--workdir={workdir}',
      ],
      cwd=processes.ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    # The nodes die with their supervisors.
    self.process.kill()
    for pid in self.supervisor_pids():
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    self.process.communicate()

  def state(self, name):
    return json.loads((self.workdir / f'state/{name}.json').read_text())

  def states(self):
    paths = (self.workdir / 'state').glob('*-0.json')
    return {path.stem: json.loads(path.read_text()) for path in paths}

  def pids(self):
    """Of every process below the launcher."""
    node_pids = [state.get('pid') for state in self.states().values()]
    return [pid for pid in node_pids if pid] + self.supervisor_pids()

  def supervisor_pids(self):
    """Of the supervisors that are alive."""
    states = self.states().values()
    pids = [state.get('supervisor_pid') for state in states]
    return [pid for pid in pids if pid and processes.is_alive(pid)]

  def ports(self):
    """That servers of the run listen on."""
    paths = (self.workdir / 'state' / 'addresses').glob('*.json')
    found = [json.loads(path.read_text())['address'] for path in paths]
    return [int(address.rpartition(':')[2]) for address in found]

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
    """Numbers of updates."""
    names = [path.name for path in (self.workdir / 'checkpoints').glob('*')]
    return {int(name) for name in names if name.isdigit()}

  def last_saved(self):
    return max(self.checkpoints())

  def log(self, name):
    path = self.workdir / f'logs/{name}.log'
    return path.read_text() if path.exists() else ''

  def stop(self, sig):
    """Sends a signal as a terminal does; waits for the end."""
    pids = self.pids()
    os.killpg(self.process.pid, sig)
    self.end()
    assert not any(map(processes.is_alive, pids))

  def end(self, timeout_s=200):
    self.output, _ = self.process.communicate(timeout=timeout_s)
    self.status = self.process.returncode


# The fixtures below are the chapters of one run, resumed by the same command.


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp('run')


@pytest.fixture(scope='module')
def stopped_run(workdir):
  """A run that lost each of its processes once, and was stopped by Ctrl-C."""
  with Run(workdir, wrapper=_FEW_FILES) as run:
    num_frames = run.await_frames(above=0)
    run.servers_reached = {
      host: [processes.is_reached(host, port) for port in run.ports()]
      for host in ('127.0.0.1', '127.0.0.2')
    }
    run.file_limits = {
      name: resource.prlimit(state['pid'], resource.RLIMIT_NOFILE)
      for name, state in run.states().items()
    }
    for name in ('actor-0', 'replay-0', 'learner-0'):
      if name == 'learner-0':
        processes.wait_for(run.checkpoints, timeout_s=120)
      run.kill_and_await(name)
      # A learner goes back to its checkpoint, and then past where it was.
      num_frames = run.await_frames(above=num_frames)
    run.states_before = run.states()
    run.stop(signal.SIGINT)
    run.last_checkpoint = run.last_saved()
    yield run


@pytest.fixture(scope='module')
def orphaned_run(stopped_run, workdir):
  """Its next session: the launcher is killed."""
  with Run(workdir) as run:
    run.num_frames = run.await_frames(above=stopped_run.rows()[-1])
    pids = run.pids()
    run.process.kill()
    processes.wait_for(
      lambda: not any(map(processes.is_alive, pids)), timeout_s=120
    )
    run.end()
    run.last_checkpoint = run.last_saved()
    run.states_after = run.states()
    yield run


@pytest.fixture(scope='module')
def damaged_run(orphaned_run, workdir):
  """The session after: its newest checkpoint was cut short; SIGTERM."""
  newest = workdir / 'checkpoints' / str(orphaned_run.last_checkpoint)
  largest = max(newest.rglob('*'), key=lambda path: path.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)
  with Run(workdir) as run:
    run.await_frames(above=orphaned_run.rows()[-1])
    run.stop(signal.SIGTERM)
    yield run


@pytest.fixture(scope='module')
def finished_run(damaged_run, workdir):
  """The last session, which goes on to the end of the run."""
  frames_before = damaged_run.rows()[-1]
  with Run(workdir, f'--config.num_frames={frames_before + 1600}') as run:
    run.frames_before = frames_before
    run.end()
    yield run


def test_every_killed_node_comes_back(stopped_run):
  for name in ('actor-0', 'replay-0', 'learner-0'):
    state = stopped_run.states_before[name]
    assert state['restarts'] == 1
    assert state['last_exit'] == 'killed by SIGKILL'


def test_servers_are_reached_by_the_loopback_address_alone(stopped_run):
  # Of the learner and of replay.
  assert stopped_run.servers_reached == {
    '127.0.0.1': [True, True],
    '127.0.0.2': [False, False],
  }


def test_nodes_may_open_as_many_files_as_the_machine_allows(stopped_run):
  _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  assert set(stopped_run.file_limits.values()) == {(most, most)}
  assert 'replay-0' in stopped_run.file_limits


def test_ctrl_c_stops_in_order(stopped_run):
  assert stopped_run.status == 0, stopped_run.output
  assert 'Stopped.' in stopped_run.output
  assert stopped_run.last_checkpoint
  assert any((stopped_run.workdir / 'replay').iterdir())


def test_nodes_save_and_go_when_the_launcher_is_killed(
  stopped_run, orphaned_run
):
  assert orphaned_run.status == -signal.SIGKILL
  states = orphaned_run.states_after.values()
  assert {state['state'] for state in states} == {'stopped'}
  assert orphaned_run.last_checkpoint > stopped_run.last_checkpoint


def test_a_truncated_checkpoint_is_skipped_and_named(
  stopped_run, orphaned_run, damaged_run
):
  damaged = orphaned_run.last_checkpoint
  log = damaged_run.log('learner-0')
  assert f'Checkpoint {damaged} cannot be read' in log
  restored = [
    int(step) for step in re.findall(r'Restored checkpoint (\d+)', log)
  ]
  # It lost but one, and went on from there.
  assert stopped_run.last_checkpoint <= restored[-1] < damaged
  assert damaged_run.last_saved() > damaged


def test_sigterm_stops_in_order(damaged_run):
  assert damaged_run.status == 0, damaged_run.output
  assert 'Stopped.' in damaged_run.output


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
      *(
        sys.executable,
        '-m',
        'bmg.launch.commands.evaluate',
        '--num_episodes=2',
      ),
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


def test_a_full_disk_ends_the_run_with_the_last_good_checkpoint(tmp_path):
  workdir = tmp_path / 'run'
  with Run(workdir, wrapper=_small_disk(workdir, tmp_path / 'kept')) as run:
    # Training goes on when a checkpoint finds no room ...
    processes.wait_for(
      lambda: (
        run.process.poll() is not None
        or 'Training goes on' in run.log('learner-0')
      ),
      timeout_s=120,
    )
    run.await_frames(above=run.rows()[-1])
    # ... but its end says what was lost.
    run.stop(signal.SIGTERM)
  assert run.status == 1, run.output
  error = run.output[run.output.index('error: ') :]
  assert 'learner-0' in error
  assert 'No space left on device' in error
  assert str(workdir / 'checkpoints') in error
  assert 'Traceback' not in run.output + run.log('learner-0')
  step = int(
    re.search(r'last good checkpoint is that of update (\d+)', error)[1]
  )
  _, counters = checkpoints.load_params(str(tmp_path / 'kept'))
  assert counters['num_updates'] == step


def _small_disk(workdir, kept):
  """Starts a command whose checkpoints go to a small file system of its own.

  At its end they are copied to `kept`.
  """
  folder = workdir / 'checkpoints'
  folder.mkdir(parents=True)
  namespace = ('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c')
  mount = f'mount -t tmpfs -o size={_SMALL_DISK} tmpfs {folder}'
  try:
    tried = subprocess.run((*namespace, mount), capture_output=True, timeout=10)
  except FileNotFoundError:
    pytest.skip('there is no unshare command')
  if tried.returncode != 0:
    pytest.skip(f'a small disk cannot be mounted here: {tried.stderr.decode()}')
  # The signal is for the launcher.
  script = f'{mount}; trap : TERM; "$@"; status=$?; cp -r {folder} {kept}; '
  return (*namespace, script + 'exit $status', 'sh')


def test_a_node_that_keeps_failing_ends_the_run_with_its_name(tmp_path):
  # Where the Reverb server wants to keep its checkpoints there is a file.
  (tmp_path / 'replay').touch()
  with Run(tmp_path, '--config.launch.max_restarts=1') as run:
    run.end()
  assert run.status == 1, run.output
  assert 'replay-0 failed for good (exit status 1, 1 restarts)' in run.output
  assert "NotADirectoryError: [Errno 20] Not a directory: '" in run.output
  assert str(tmp_path / 'replay') in run.output
  assert str(tmp_path / 'logs/replay-0.log') in run.output
  assert 'Traceback' not in run.output


def test_threads_run_the_same_program(tmp_path):
  arguments = (
    '--launcher=threads',
    '--config.num_frames=1600',
    '--config.actors.num_actors=2',
    '--config.actors.inference=learner',
    '--config.actors.env_groups=2',
  )
  with Run(tmp_path / 'run', *arguments) as run:
    run.end()
  assert run.status == 0, run.output
  assert 'Finished.' in run.output
  assert run.rows()[-1] >= 1600


def test_a_run_is_spread_over_servers_hosts_and_relays(tmp_path):
  arguments = (
    '--config.num_frames=1600',
    '--config.replay.num_servers=2',
    '--config.learner.num_hosts=2',
    '--config.actors.num_actors=3',
    '--config.cluster.actors_per_task=2',
    '--config.cluster.relays=true',
  )
  with Run(tmp_path / 'run', *arguments) as run:
    run.end()
  assert run.status == 0, run.output
  assert run.rows()[-1] >= 1600
  saved = [path.name for path in (run.workdir / 'replay').iterdir()]
  assert sorted(saved) == ['0', '1']
  assert all(any(path.iterdir()) for path in (run.workdir / 'replay').iterdir())
  states = [path.stem for path in (run.workdir / 'state').glob('relay-*.json')]
  assert sorted(states) == ['relay-0', 'relay-1']
  assert 'Learner host 1 of 2' in run.log('learner-1')
