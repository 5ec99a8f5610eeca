import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from bmg.configs import schema
from bmg.launch.local import launcher as local
from tests.launch import processes

pytestmark = pytest.mark.system

_LIVE = """
def stop(*_):
  print('saved')
  sys.exit(0)
signal.signal(signal.SIGTERM, stop)
heartbeat()
while True:
  time.sleep(0.1)
"""
_STUBBORN = 'signal.signal(signal.SIGTERM, signal.SIG_IGN)' + _LIVE.replace(
  'signal.signal(signal.SIGTERM, stop)', ''
)


class Launched:
  """A launcher of fake nodes, as a process."""

  def __init__(self, workdir, script, **launch):
    workdir.mkdir()
    path = workdir / 'node.py'
    path.write_text(processes.FAKE_PREAMBLE + script)
    self.workdir = workdir
    self.process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'tests.launch.fake_run'),
        *(str(workdir), str(path)),
      ],
      cwd=processes.ROOT,
      env={**os.environ, 'FAKE_LAUNCH': json.dumps(launch)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )

  def states(self):
    paths = sorted((self.workdir / 'state').glob('*-*.json'))
    return {path.stem: json.loads(path.read_text()) for path in paths}

  def await_running(self):
    """Waits for all four nodes; returns the pids of all processes below."""
    states = processes.wait_for(
      lambda: (
        [state['state'] for state in self.states().values()] == ['running'] * 4
        and self.states()
      )
    )
    return [
      state[pid]
      for state in states.values()
      for pid in ('pid', 'supervisor_pid')
    ]

  def end(self):
    """Waits for the launcher's end; returns its status and its output."""
    output, _ = self.process.communicate(timeout=30)
    return self.process.returncode, output


@pytest.fixture
def launch(tmp_path):
  launched = []

  def start(script, **kwargs):
    workdir = tmp_path / f'run{len(launched)}'
    launched.append(Launched(workdir, script, **kwargs))
    return launched[-1]

  yield start
  for each in launched:
    each.process.kill()
    for state in each.states().values():
      with contextlib.suppress(ProcessLookupError, KeyError):
        os.kill(state['supervisor_pid'], signal.SIGKILL)
    each.process.communicate()


def _assert_gone(pids):
  processes.wait_for(lambda: not any(map(processes.is_alive, pids)))


@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_in_order(launch, sig):
  launched = launch(_LIVE)
  pids = launched.await_running()
  # As a terminal does: to the whole foreground process group.
  os.killpg(launched.process.pid, sig)
  status, output = launched.end()
  assert status == 0
  assert 'Stopped.' in output
  assert not any(map(processes.is_alive, pids))
  for state in launched.states().values():
    assert state['state'] == 'stopped'
  assert 'saved' in (launched.workdir / 'logs/learner-0.log').read_text()


def test_the_run_ends_when_learner_and_evaluator_are_through(launch):
  launched = launch(
    """
heartbeat()
finished = pathlib.Path(args['workdir'], 'state', 'finished.json')
if args['group'] == 'learner':
  time.sleep(0.5)
  finished.write_text('{}')
if args['group'] == 'evaluator':
  while not finished.exists():
    time.sleep(0.1)
  time.sleep(0.5)
  sys.exit(0)
"""
    + _LIVE
  )
  status, output = launched.end()
  assert status == 0
  assert 'Finished.' in output
  states = launched.states()
  assert states['evaluator-0']['state'] == 'finished'
  assert states['learner-0']['state'] == 'stopped'


def test_a_node_that_fails_for_good_ends_the_run_with_its_error(launch):
  launched = launch(
    """
if args['group'] == 'learner':
  print('FatalError: loss/value is NaN at update 7')
  sys.exit(3)
"""
    + _LIVE
  )
  status, output = launched.end()
  assert status == 1
  assert 'learner-0 failed for good' in output
  assert 'FatalError: loss/value is NaN at update 7' in output
  for state in launched.states().values():
    assert state['state'] in ('stopped', 'failed')


def test_a_learner_that_cannot_save_at_the_stop_is_an_error(launch):
  launched = launch(
    _LIVE.replace(
      "print('saved')",
      "print('OSError: disk full')\n  sys.exit(args['group'] == 'learner')",
    )
  )
  launched.await_running()
  launched.process.terminate()
  status, output = launched.end()
  assert status == 1
  assert 'OSError: disk full' in output


def test_a_killed_supervisor_ends_the_run(launch):
  launched = launch(_LIVE)
  pids = launched.await_running()
  os.kill(launched.states()['actor-0']['supervisor_pid'], signal.SIGKILL)
  status, output = launched.end()
  assert status == 1
  assert 'actor-0' in output
  _assert_gone(pids)


def test_nodes_save_and_go_when_the_launcher_is_killed(launch):
  launched = launch(_LIVE)
  pids = launched.await_running()
  launched.process.kill()
  _assert_gone(pids)
  assert launched.states()['learner-0']['state'] == 'stopped'
  assert 'saved' in (launched.workdir / 'logs/learner-0.log').read_text()


def test_the_third_signal_kills(launch):
  launched = launch(_STUBBORN, grace_s=60.0)
  pids = launched.await_running()
  launched.process.send_signal(signal.SIGINT)
  processes.wait_for(
    lambda: launched.states()['learner-0']['state'] == 'stopping'
  )
  launched.process.send_signal(signal.SIGINT)
  line = ''
  while 'Still stopping' not in line:
    line = launched.process.stdout.readline()
    assert line
  launched.process.send_signal(signal.SIGINT)
  status, output = launched.end()
  assert status == 130
  assert 'Killed' in output
  _assert_gone(pids)


def test_a_folder_stays_locked_until_the_last_node_has_gone(launch):
  launched = launch(_STUBBORN, grace_s=2.0)
  pids = launched.await_running()
  launched.process.kill()
  launched.process.wait()
  with pytest.raises(local.LaunchError, match=str(launched.process.pid)):
    local.lock(str(launched.workdir))
  _assert_gone(pids)
  local.lock(str(launched.workdir)).close()


def test_incarnations_go_on_from_run_to_run(launch):
  launched = launch('heartbeat()' + _LIVE)
  launched.await_running()
  launched.process.terminate()
  assert launched.end()[0] == 0
  assert launched.states()['actor-0']['starts'] == 1
  config = json.loads((launched.workdir / 'config.json').read_text())
  run = local.LocalRun(
    schema.from_config_dict(config),
    str(launched.workdir),
    _Silent(launched),
    os.open(launched.workdir, os.O_RDONLY),
    (sys.executable, '-S', str(launched.workdir / 'node.py')),
  )
  assert run.run() == 0
  assert launched.states()['actor-0']['starts'] == 2


class _Silent:
  """A display that stops the run once its nodes are up."""

  def __init__(self, launched):
    self._launched = launched
    self._stopped = False

  def update(self):
    states = [state['state'] for state in self._launched.states().values()]
    if states == ['running'] * 4 and not self._stopped:
      self._stopped = True
      os.kill(os.getpid(), signal.SIGINT)

  def say(self, message):
    pass
