import json
import os
import signal
import subprocess
import sys

import pytest

from bmg.launch import cli
from bmg.launch.local import launcher as local
from tests.launch import processes

_RECIPE = f'--config={processes.ROOT}/configs/atari_local.py'
_NUM_FRAMES = 2000

# A fake `bmg train` is a script that starts with this.
_PREAMBLE = """
import json, os, pathlib, signal, sys, time
args = dict(arg.removeprefix('--').split('=', 1) for arg in sys.argv[1:])
workdir = pathlib.Path(args['workdir'])
game, seed = args['config.env.game'], args['config.seed']
state = workdir / 'state'
state.mkdir(parents=True, exist_ok=True)
with open(workdir / 'starts', 'a') as file:
  file.write(f'{os.getpid()}\\n')
start = len((workdir / 'starts').read_text().split())
def learn(frames, name='learner'):
  row = {'num_frames': frames, 'episode_return': 1.5, 'time_left': 60.0,
         'frames_per_second_long': 100.0}
  with open(workdir / f'{name}.jsonl', 'a') as file:
    file.write(json.dumps(row) + '\\n')
def finish(frames=2000):
  learn(frames)
  learn(frames, 'evaluation')
  (state / 'finished.json').write_text(json.dumps({'num_frames': frames}))
  sys.exit(0)
def fail(node, status, error):
  (state / f'{node}.json').write_text(json.dumps({
    'name': node, 'state': 'failed', 'last_exit': f'exit status {status}',
    'last_error': error, 'time': time.time()}))
  print(f'error: {node} failed for good\\n  its log: somewhere')
  sys.exit(1)
"""
_LIVE = """
def stop(*_):
  (workdir / 'checkpoints' / '1').mkdir(parents=True, exist_ok=True)
  (workdir / 'saved').touch()
  sys.exit(0)
signal.signal(signal.SIGTERM, stop)
learn(500)
while True:
  time.sleep(0.05)
"""
_STUBBORN = _LIVE.replace(
  'signal.signal(signal.SIGTERM, stop)',
  'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
  'signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
  'signal.signal(signal.SIGHUP, signal.SIG_IGN)',
)


class Sweep:
  """A sweep of fake runs, as a process; two games with one seed each."""

  def __init__(self, workdir, script, *arguments):
    path = workdir.with_suffix('.py')
    path.write_text(_PREAMBLE + script)
    self.workdir = workdir
    self.process = subprocess.Popen(
      [
        *(
          sys.executable,
          '-m',
          'tests.launch.sweep.fake_sweep',
          str(path),
          _RECIPE,
        ),
        *('--games=pong,boxing', f'--config.num_frames={_NUM_FRAMES}'),
        *(f'--workdir={workdir}', '--max_running=2', '--retry_delay_s=0.1'),
        *arguments,
      ],
      cwd=processes.ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )

  def states(self):
    path = self.workdir / 'state/cells.json'
    values = json.loads(path.read_text()) if path.exists() else {}
    return {name: value['state'] for name, value in values.items()}

  def note(self, cell):
    path = self.workdir / 'state/cells.json'
    return json.loads(path.read_text())[cell]['reason']

  def pids(self, cell='*'):
    """Of all processes that were ever started for a cell."""
    paths = self.workdir.glob(f'{cell}-*/starts')
    return [int(pid) for path in paths for pid in path.read_text().split()]

  def await_live(self):
    """Waits until two cells have started to learn."""
    processes.wait_for(
      lambda: (
        self.process.poll() is not None
        or len(list(self.workdir.glob('*/learner.jsonl'))) == 2
      )
    )
    assert self.process.poll() is None, self.process.stdout.read()
    return self.pids()

  def end(self):
    """Waits for its end; returns its status and its output."""
    output, _ = self.process.communicate(timeout=30)
    return self.process.returncode, output


@pytest.fixture
def start(tmp_path):
  started = []

  def start_sweep(script, *arguments):
    started.append(Sweep(tmp_path / 'sweep', script, *arguments))
    return started[-1]

  yield start_sweep
  for each in started:
    each.process.kill()
    for pid in each.pids():
      if processes.is_alive(pid):
        os.kill(pid, signal.SIGKILL)
    each.process.communicate()


@pytest.mark.system
def test_a_sweep_runs_every_cell_once(start):
  script = (
    "assert args['config.num_frames'] == '2000'\n"
    "assert args['launcher'] == 'local'\n"
    'finish()'
  )
  first = start(script, '--seeds=2', '--max_running=3')
  status, output = first.end()
  assert status == 0, output
  names = ['pong-1', 'boxing-1', 'pong-2', 'boxing-2']
  assert first.states() == dict.fromkeys(names, 'done')
  assert '4 of 4 cells are done, 0 failed' in output
  assert '8k of 8k frames (100 %)' in output
  saved = json.loads((first.workdir / 'sweep.json').read_text())
  assert saved['games'] == ['pong', 'boxing']
  assert saved['seeds'] == [1, 2]
  assert saved['config']['num_frames'] == _NUM_FRAMES
  assert '--seeds=2' in saved['starts'][0]['command_line']
  assert saved['starts'][0]['packages']['jax']

  # The same command finds nothing to do, but for what is new.
  second = start(script, '--seeds=1,2,5')
  status, output = second.end()
  assert status == 0, output
  assert 'Changed since the last start: seeds: (1, 2) -> (1, 2, 5)' in output
  assert len(second.pids()) == 6
  assert '6 of 6 cells are done' in output


@pytest.mark.system
@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_goes_on(start, sig):
  first = start(_LIVE, '--seeds=2')
  pids = first.await_live()
  assert len(pids) == 2
  # As a terminal does: to the whole foreground process group.
  os.killpg(first.process.pid, sig)
  status, output = first.end()
  assert status == 0, output
  assert 'Stopped: 0 of 4 cells are done' in output
  assert len(list(first.workdir.glob('*/saved'))) == 2
  assert not any(map(processes.is_alive, pids))
  assert sorted(first.states().values()) == ['pending'] * 2 + ['stopped'] * 2

  status, output = start('finish()', '--seeds=2').end()
  assert status == 0, output
  assert '4 of 4 cells are done' in output
  assert len(first.pids()) == 6


@pytest.mark.system
def test_failures_are_retried_and_hopeless_ones_are_not(start):
  run = start(
    """
if game == 'boxing' and start < 3:
  fail('learner-0', 1, 'OSError: no')
if game == 'pong':
  fail('replay-0', 1, 'OSError: port')
if game == 'alien':
  fail('learner-0', 3, 'FatalError: loss is NaN')
if game == 'qbert':
  print('error: config.seed: no')
  sys.exit(2)
finish()
""",
    '--games=pong,boxing,alien,qbert',
    '--max_retries=2',
  )
  status, output = run.end()
  assert status == 1
  assert run.states() == {
    'pong-1': 'failed',
    'boxing-1': 'done',
    'alien-1': 'failed',
    'qbert-1': 'failed',
  }
  assert len(run.pids('boxing')) == len(run.pids('pong')) == 3
  assert len(run.pids('alien')) == len(run.pids('qbert')) == 1
  assert run.note('pong-1').startswith('replay-0: OSError: port')
  assert 'given up after 2 retries' in run.note('pong-1')
  assert 'FatalError: loss is NaN' in run.note('alien-1')
  assert 'another start would not help' in run.note('alien-1')
  assert 'config.seed: no' in run.note('qbert-1')
  assert 'boxing-1: running (retry 2): last failure: learner-0' in output
  assert '3 failed' in output


@pytest.mark.system
def test_a_killed_cell_comes_back_and_one_that_was_stopped_too(start):
  run = start('if start > 1: finish()' + _LIVE)
  run.await_live()
  os.kill(run.pids('pong')[0], signal.SIGKILL)
  os.kill(run.pids('boxing')[0], signal.SIGTERM)
  status, output = run.end()
  assert status == 0, output
  assert 'pong-1: retrying (retry 1): killed by SIGKILL' in output
  assert 'boxing-1: retrying (retry 1): was stopped, but not by' in output


@pytest.mark.system
def test_a_killed_sweep_leaves_no_orphan_and_keeps_the_folder(start):
  # The cells take their time to stop.
  slow = _LIVE.replace('def stop(*_):', 'def stop(*_):\n  time.sleep(1.5)')
  first = start(slow)
  pids = first.await_live()
  second = start(slow)
  status, output = second.end()
  assert status == cli.USAGE_STATUS
  assert f'in use by another run, with pid {first.process.pid}' in output
  assert output.count('\n') == 1
  first.process.kill()
  first.process.wait()
  # It stays locked until the last one has gone.
  assert local.in_use(str(first.workdir))
  processes.wait_for(lambda: not any(map(processes.is_alive, pids)))
  assert not local.in_use(str(first.workdir))
  assert len(list(first.workdir.glob('*/saved'))) == 2
  assert first.states() == {'pong-1': 'running', 'boxing-1': 'running'}

  result = subprocess.run(
    [
      *(sys.executable, '-m', 'bmg.launch.commands.sweep', '--status'),
      f'--workdir={first.workdir}',
    ],
    cwd=processes.ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert 'No sweep is running' in result.stdout
  assert '2 cells: 2 stopped' in result.stdout
  assert '1k of 4k frames (25 %)' in result.stdout


@pytest.mark.system
def test_the_third_signal_kills(start):
  run = start(_STUBBORN)
  pids = run.await_live()
  run.process.send_signal(signal.SIGINT)
  processes.wait_for(lambda: set(run.states().values()) == {'stopping'})
  run.process.send_signal(signal.SIGINT)
  line = ''
  while 'Still stopping: pong-1, boxing-1' not in line:
    line = run.process.stdout.readline()
    assert line
  run.process.send_signal(signal.SIGINT)
  status, output = run.end()
  assert status == 130
  assert 'Killed' in output
  assert not any(map(processes.is_alive, pids))


@pytest.mark.system
def test_a_cell_waits_for_its_folder(start, tmp_path):
  with local.lock(str(tmp_path / 'sweep/pong-1')):
    run = start('finish()')
    processes.wait_for(
      lambda: run.states().get('boxing-1') == 'done' and run.note('pong-1')
    )
    assert run.pids('pong') == []
    assert 'another run in its folder' in run.note('pong-1')
  status, output = run.end()
  assert status == 0, output
  assert '2 of 2 cells are done' in output


@pytest.mark.system
def test_a_sweep_of_variants_goes_on_with_more_of_them(start):
  script = (
    "variant = args['config'].partition(':')[2]\n"
    'assert workdir.parent.name == variant\n'
    "(workdir / 'checkpoints' / '1').mkdir(parents=True, exist_ok=True)\n"
    'finish()'
  )
  recipe = f'--config={processes.VARIANTS_RECIPE}'
  first = start(script, recipe, '--variants=none,bmg')
  status, output = first.end()
  assert status == 0, output
  cells_done = ['none/pong-1', 'bmg/pong-1', 'none/boxing-1', 'bmg/boxing-1']
  assert first.states() == dict.fromkeys(cells_done, 'done')
  second = start(script, recipe, '--variants=all')
  status, output = second.end()
  assert status == 0, output
  assert '8 of 8 cells are done' in output
  starts = first.workdir.glob('*/*/starts')
  assert [len(path.read_text().split()) for path in starts] == [1] * 8

  status, output = start(
    script, recipe, '--variants=bmg', '--config.meta.bootstrap_length=2'
  ).end()
  assert status == cli.USAGE_STATUS
  assert "config.meta.bootstrap_length = 2: but cells of the variant 'bmg'" in (
    output
  )
