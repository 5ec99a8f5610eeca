import dataclasses
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from configs import checks, schema
from evaluation import atari_scores
from launch import cli, dns, local, run_files
from launch.sweep import __main__ as sweep
from launch.sweep import (
  cells,
  folder,
  launchers,
  machine,
  progress,
  queues,
  scheduler,
  table,
)
from tests.launch import processes

_RECIPE = f'--config={processes.ROOT}/configs/atari_local.py'
_NUM_FRAMES = 2000

# A fake `launch.train` is a script that starts with this.
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
        *(sys.executable, '-m', 'tests.launch.fake_sweep', str(path), _RECIPE),
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
  assert folder.in_use(str(first.workdir))
  processes.wait_for(lambda: not any(map(processes.is_alive, pids)))
  assert not folder.in_use(str(first.workdir))
  assert len(list(first.workdir.glob('*/saved'))) == 2
  assert first.states() == {'pong-1': 'running', 'boxing-1': 'running'}

  result = subprocess.run(
    [
      *(sys.executable, '-m', 'launch.sweep', '--status'),
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


_BAD_ARGUMENTS = {
  'no games': (['--seeds=3'], ['--games is missing', 'atari57']),
  'unknown game': (
    ['--games=pong,brekout'],
    ['--games', "'brekout'", "'breakout'", 'atari57, atari5'],
  ),
  'unknown group': (['--games=atari75'], ["'atari75'", "Did you mean 'atari5"]),
  'a game twice': (['--games=pong,pong'], ['--games=pong,pong', 'twice']),
  'no seed': (['--games=pong', '--seeds=x'], ['--seeds=x', '2^31', '4,7']),
  'negative seed': (['--games=pong', '--seeds=-1,2'], ['--seeds=-1,2']),
  'a seed twice': (['--games=pong', '--seeds=3,3'], ['--seeds=3,3', 'twice']),
  'no seeds': (['--games=pong', '--seeds=0'], ['--seeds=0', 'between 1']),
  'one large seed': (['--games=pong', '--seeds=4711'], ['--seeds=4711,']),
  'launcher': (
    ['--games=pong', '--launcher=slrm'],
    ['--launcher=slrm', 'local, slurm, kubernetes', "'slurm'"],
  ),
  'a game as override': (
    ['--games=pong', '--config.env.game=pong'],
    ['--config.env.game=pong', '--games'],
  ),
  'a seed as override': (
    ['--games=pong', '--config.seed=3'],
    ['--config.seed=3', '--seeds'],
  ),
  'bad override': (['--games=pong', '--config.sed=3'], ["'seed'"]),
  'bad number': (['--games=pong', '--max_running=0'], ['--max_running=0']),
  'unknown flag': (['--games=pong', '--max_runing=2'], ['max_running']),
  'bad status': (['--stats'], ['stat']),
}


@pytest.mark.parametrize('case', _BAD_ARGUMENTS)
def test_bad_arguments_are_named(case, tmp_path):
  arguments, mentioned = _BAD_ARGUMENTS[case]
  workdir = tmp_path / 'sweep'
  with pytest.raises((cli.UsageError, checks.ConfigError)) as raised:
    sweep.main(['sweep', _RECIPE, f'--workdir={workdir}', *arguments])
  message = str(raised.value)
  assert '\n' not in message
  for text in mentioned:
    assert text in message
  assert not workdir.exists()


def test_status_of_no_sweep_is_named(tmp_path):
  with pytest.raises(cli.UsageError, match=r'sweep\.json cannot be read'):
    sweep.main(['sweep', '--status', f'--workdir={tmp_path}'])
  with pytest.raises(cli.UsageError, match='--workdir is missing'):
    sweep.main(['sweep', '--status'])


def test_games_and_seeds():
  assert len(cells.parse_games('atari57')) == 57
  assert cells.parse_games('atari5') == tuple(atari_scores.ATARI5)
  assert set(atari_scores.ATARI5) < set(cells.parse_games('atari57'))
  assert cells.parse_games('pong, qbert') == ('pong', 'qbert')
  assert cells.parse_seeds('3') == (1, 2, 3)
  assert cells.parse_seeds('4,7') == (4, 7)
  assert cells.parse_seeds('4711,') == (4711,)


def test_kubernetes_keeps_the_folder_of_each_cell_by_its_name():
  games = ('pong', 'battle_zone')
  pong, battle_zone = cells.make_cells('/runs', games, (1,), 'kubernetes')
  assert pong.workdir == '/runs/pong-1'
  name = dns.run_name(battle_zone.workdir)
  assert battle_zone.workdir == f'/runs/{name}'


def test_a_dry_run_prints_commands_that_train_would_understand(
  tmp_path, capsys
):
  workdir = tmp_path / 'a sweep'
  status = sweep.main(
    [
      *('sweep', '--games=pong,boxing', '--seeds=4,7', '--dry_run'),
      *(f'--workdir={workdir}', _RECIPE, '--config.num_frames', '5000'),
      *('--config.agent.head_hidden=(32,)', '--noconfig.replay.checkpoint'),
      *('--config.optimizer.learning_rate=1e-4', '--config.meta.mode=mg'),
    ]
  )
  assert status == 0
  assert not workdir.exists()
  lines = capsys.readouterr().out.splitlines()
  commands = [shlex.split(line) for line in lines if line[0] != '#']
  assert len(commands) == 4
  for command, (game, seed) in zip(
    commands,
    [('pong', 4), ('boxing', 4), ('pong', 7), ('boxing', 7)],
    strict=True,
  ):
    assert command[1:3] == ['-m', 'launch.train']
    flag_values = cli.flags.FlagValues()
    for name in ('workdir', 'launcher'):
      cli.flags.DEFINE_string(name, None, '', flag_values=flag_values)
    config = cli.parse_with_config(flag_values, command[2:])
    assert (config.env.game, config.seed) == (game, seed)
    assert config.num_frames == 5000
    assert config.agent.head_hidden == (32,)
    assert config.meta.mode == 'mg'
    assert config.optimizer.learning_rate == 1e-4
    assert flag_values['workdir'].value == f'{workdir}/{game}-{seed}'


def _settings(config, **changes):
  values = {'games': ('pong',), 'seeds': (1,), 'launcher': 'local', **changes}
  return folder.Settings(
    recipe='recipe.py',
    overrides={},
    config=folder.common_config(config),
    **values,
  )


def test_another_kind_of_sweep_is_refused_once_cells_were_trained(tmp_path):
  workdir = str(tmp_path)
  config = processes.small_config()
  folder.write(workdir, _settings(config), ['sweep'])
  other = dataclasses.replace(
    config, optimizer=dataclasses.replace(config.optimizer, learning_rate=0.5)
  )
  assert folder.check(workdir, _settings(other)) == [
    f'config.optimizer.learning_rate: {config.optimizer.learning_rate} -> 0.5'
  ]
  (tmp_path / 'pong-1/checkpoints/7').mkdir(parents=True)
  with pytest.raises(checks.ConfigError, match=r'optimizer\.learning_rate'):
    folder.check(workdir, _settings(other))
  # What only steers may change, and there may be more to do.
  longer = dataclasses.replace(config, num_frames=300_000_000, seed=9)
  assert folder.check(workdir, _settings(longer, seeds=(1, 2))) == [
    'seeds: (1,) -> (1, 2)',
    'config.num_frames: 200000000 -> 300000000',
  ]
  with pytest.raises(cli.UsageError, match='--launcher=kubernetes'):
    folder.check(workdir, _settings(config, launcher='kubernetes'))
  saved = folder.read(workdir)
  assert (saved.games, saved.seeds) == (('pong',), (1,))
  assert saved.num_frames == config.num_frames


def test_the_folder_of_a_run_takes_no_sweep(tmp_path):
  (tmp_path / 'config.json').touch()
  with pytest.raises(cli.UsageError, match='single run'):
    folder.check(str(tmp_path), _settings(processes.small_config()))


@pytest.mark.parametrize(
  ('cores', 'memory_gb', 'gpus', 'expected'),
  [
    (2, 24.0, (), 1),
    (1, 1.0, (), 1),
    (64, 1000.0, (), 16),
    (64, 20.0, (), 2),
    (64, 1000.0, ('0', '1', '5'), 3),
  ],
)
def test_a_machine_takes_what_it_has_room_for(cores, memory_gb, gpus, expected):
  config = processes.small_config(num_actors=3)
  config = dataclasses.replace(config, learner=schema.Learner(num_devices=1))
  here = machine.Machine(cores, memory_gb, gpus)
  assert machine.max_running(config, here) == expected
  slots = machine.slots(config, here, expected)
  assert len(slots) == expected
  if gpus:
    assert [slot['CUDA_VISIBLE_DEVICES'] for slot in slots] == list(gpus)


def test_cells_that_take_all_gpus_run_alone():
  config = processes.small_config()
  here = machine.Machine(64, 1000.0, ('0', '1'))
  assert machine.max_running(config, here) == 1
  assert machine.slots(config, here, 2)[1]['CUDA_VISIBLE_DEVICES'] == '0,1'


def test_progress_of_a_run(tmp_path):
  workdir = str(tmp_path)
  assert progress.read(workdir, 'pong', 1000) == progress.Progress()
  row = {'num_frames': 900, 'episode_return': None, 'time_left': 3.0}
  (tmp_path / 'learner.jsonl').write_text(json.dumps(row) + '\n')
  so_far = progress.read(workdir, 'pong', 1000)
  assert (so_far.num_frames, so_far.episode_return) == (900, None)
  assert not so_far.learned
  row = {'num_frames': 1000, 'episode_return': 14.6}
  (tmp_path / 'learner.jsonl').write_text(json.dumps(row) + '\n')
  run_files.write_json(run_files.finished(workdir), {'num_frames': 1000})
  so_far = progress.read(workdir, 'pong', 1000)
  assert so_far.human_normalized == pytest.approx(1.0)
  assert (so_far.learned, so_far.evaluated) == (True, False)
  (tmp_path / 'evaluation.jsonl').write_text('{"num_frames": 1000}\n')
  assert progress.read(workdir, 'pong', 1000).evaluated
  # More is asked of it now.
  assert not progress.read(workdir, 'pong', 1001).learned


def test_the_failure_that_others_followed_is_the_reason(tmp_path):
  for name, status, at in (
    ('actor-0', 1, 11.0),
    ('learner-0', 3, 12.0),
    ('replay-0', 1, 9.0),
  ):
    run_files.write_json(
      tmp_path / f'state/{name}.json',
      {
        'name': name,
        'state': 'failed',
        'last_exit': f'exit status {status}',
        'last_error': 'oh',
        'time': at,
      },
    )
  failure = progress.node_failure(str(tmp_path), since=10.0)
  assert failure == ('learner-0: oh (exit status 3)', True)
  assert progress.node_failure(str(tmp_path), since=13.0) is None


def _show(tmp_path, height):
  """Returns the table of nine cells, one of which runs and one has failed."""
  grid = cells.make_cells(str(tmp_path), ('pong', 'boxing', 'alien'), (1, 2, 3))
  statuses = [cells.Status(cell) for cell in grid]
  statuses[7].state = cells.RUNNING
  statuses[8].state, statuses[8].reason = cells.FAILED, 'replay-0: port'
  folder_path = tmp_path / 'boxing-3'
  folder_path.mkdir()
  row = {
    'num_frames': 50_000_000,
    'frames_per_second_long': 10_000.0,
    'episode_return': 12.1,
    'time_left': 15_000.0,
  }
  (folder_path / 'learner.jsonl').write_text(json.dumps(row) + '\n')
  output = io.StringIO()
  console = Console(
    file=output,
    width=120,
    height=height,
    force_terminal=True,
    color_system=None,
  )
  settings = _settings(processes.small_config())
  with table.Display(settings, str(tmp_path), console) as display:
    display.update(statuses)
    display.changed(statuses[7])
    display.changed(statuses[8])
  return output.getvalue()


def test_a_terminal_shows_the_cells_that_matter(tmp_path):
  text = _show(tmp_path, height=11)
  (row,) = [line for line in text.splitlines() if 'running' in line][:1]
  for shown in (*('boxing-3', '50M (25 %)', '10k', '12.1', '100 %', '4h10m'),):
    assert shown in row
  assert 'replay-0: port' in text
  assert '... and 6 more cells' in text
  assert '9 cells: 7 pending, 1 running, 1 failed' in text
  assert '50M of 1.8G frames (3 %)  10k/s  left 48h36m' in text
  assert 'median 100 %, mean 100 % over 1 games' in text
  # The table shows what runs; what fails is also said for good.
  assert 'alien-3: failed for good: replay-0: port' in text
  assert 'boxing-3: running' not in text


def test_a_large_terminal_shows_all_cells(tmp_path):
  text = _show(tmp_path, height=40)
  assert 'more cells' not in text
  assert all(f'{game}-1' in text for game in ('pong', 'boxing', 'alien'))


_GONE = 'its job has gone before the run finished'


def _write_script(path, script):
  path.write_text(f'#!/bin/sh\n{script}')
  path.chmod(0o755)


class Cluster:
  """A fake Slurm: jobs are files in a folder, submitted by a fake train."""

  def __init__(self, folder, monkeypatch):
    self.jobs = folder / 'jobs'
    self.jobs.mkdir()
    scripts = {
      'squeue': f'test ! -e {folder}/down && ls {self.jobs}',
      'scancel': f'rm -f {self.jobs}/$2',
      'stop': f'cd "${{1#--workdir=}}" && rm {self.jobs}/$(cat core)',
      'train': f"""
workdir="${{1#--workdir=}}"; mkdir -p "$workdir/state"; cd "$workdir"
test ! -e refuse || {{ echo 'error: sbatch: no'; exit 2; }}
echo x >> starts; n=$(wc -l < starts)
echo $n-core > core; touch {self.jobs}/$n-core {self.jobs}/$n-actors
echo '{{"number": 0, "state": "waiting"}}' > state/launch.json
echo "{{\\"core_job\\": \\"$n-core\\", \\"actor_job\\": \\"$n-actors\\"}}" \\
  > state/slurm.json
""",
    }
    for name, script in scripts.items():
      _write_script(folder / name, script)
    self.down = folder / 'down'
    self.workdir = folder / 'cell'
    self.workdir.mkdir()
    self.cell = cells.Cell(
      'pong',
      1,
      str(self.workdir),
      (str(folder / 'train'), f'--workdir={self.workdir}'),
    )
    monkeypatch.setattr(
      queues.SlurmQueue,
      'stop_command',
      lambda _, workdir: (str(folder / 'stop'), f'--workdir={workdir}'),
    )
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')

  def launcher(self):
    return launchers.ClusterLauncher(
      _NUM_FRAMES, queues.SlurmQueue(0.05), period_s=0.0
    )

  def await_ending(self, launcher):
    return processes.wait_for(lambda: launcher.poll(self.cell))

  def await_submission(self, launcher):
    launcher.start(self.cell)
    path = run_files.jobs(str(self.workdir))
    processes.wait_for(lambda: path.exists() and not launcher.poll(self.cell))
    processes.wait_for(lambda: launcher.adopt(self.cell))

  def finish(self):
    run_files.write_json(
      run_files.finished(str(self.workdir)), {'num_frames': _NUM_FRAMES}
    )
    (self.workdir / 'evaluation.jsonl').write_text(
      json.dumps({'num_frames': _NUM_FRAMES}) + '\n'
    )


@pytest.fixture
def cluster(tmp_path, monkeypatch):
  return Cluster(tmp_path, monkeypatch)


def test_a_submitted_cell_is_followed_to_its_end(cluster):
  launcher = cluster.launcher()
  assert not launcher.adopt(cluster.cell)
  assert launcher.obstacle(cluster.cell) is None
  cluster.await_submission(launcher)
  assert launcher.poll(cluster.cell) is None
  # Another sweep finds it running.
  assert cluster.launcher().adopt(cluster.cell)
  cluster.finish()
  assert cluster.await_ending(launcher) == (cells.DONE, '', False)


def test_a_cell_whose_job_has_gone_is_submitted_again(cluster):
  launcher = cluster.launcher()
  cluster.await_submission(launcher)
  # While Slurm does not answer, nothing is known to have gone.
  cluster.down.touch()
  (cluster.jobs / '1-core').unlink()
  until = time.monotonic() + 0.3
  while time.monotonic() < until:
    assert launcher.poll(cluster.cell) is None
  cluster.down.unlink()
  ending = cluster.await_ending(launcher)
  assert ending == (cells.FAILED, _GONE, False)
  # Its actors are seen to first.
  assert 'last jobs' in launcher.obstacle(cluster.cell)
  processes.wait_for(lambda: launcher.obstacle(cluster.cell) is None)
  assert not list(cluster.jobs.iterdir())
  cluster.await_submission(launcher)
  assert (cluster.workdir / 'starts').read_text() == 'x\nx\n'


def test_a_submitted_cell_that_failed_for_good_is_hopeless(cluster):
  launcher = cluster.launcher()
  cluster.await_submission(launcher)
  run_files.write_json(
    cluster.workdir / 'state/learner-0.json',
    {
      'name': 'learner-0',
      'state': 'failed',
      'last_exit': 'exit status 3',
      'last_error': 'FatalError: NaN',
      'time': time.time(),
    },
  )
  run_files.end_launch(str(cluster.workdir), run_files.FAILED)
  ending = cluster.await_ending(launcher)
  assert ending.hopeless
  assert 'FatalError: NaN' in ending.reason


def test_a_submitted_cell_is_stopped(cluster):
  launcher = cluster.launcher()
  cluster.await_submission(launcher)
  launcher.stop(cluster.cell)
  assert cluster.await_ending(launcher).state == cells.STOPPED


def test_a_refused_submission_may_be_tried_again(cluster):
  (cluster.workdir / 'refuse').touch()
  launcher = cluster.launcher()
  launcher.start(cluster.cell)
  ending = cluster.await_ending(launcher)
  assert ending == (cells.FAILED, 'sbatch: no', False)


class _Endless:
  """A launcher, and the display of its sweep, whose terminal is closed."""

  detached = True

  def __init__(self):
    self.said = []
    self.started = []

  def adopt(self, cell):
    return cell.game == 'pong'

  def obstacle(self, cell):
    return None

  def start(self, cell):
    self.started.append(str(cell))

  def poll(self, cell):
    return None

  def changed(self, status):
    pass

  def update(self, statuses):
    os.kill(os.getpid(), signal.SIGHUP)

  def say(self, message):
    self.said.append(message)


def test_submitted_cells_outlive_the_terminal(tmp_path):
  endless = _Endless()
  result = scheduler.Sweep(
    str(tmp_path),
    cells.make_cells(str(tmp_path), ('pong', 'boxing'), (1,)),
    _NUM_FRAMES,
    endless,
    endless,
    max_running=2,
    max_retries=0,
    retry_delay_s=0.0,
    grace_s=1.0,
  ).run()
  assert result == 0
  assert endless.said == ['The cells go on without this sweep.']
  # The other one was found running.
  assert endless.started == ['boxing-1']


def test_job_sets_of_kubernetes_are_looked_at_and_deleted(
  tmp_path, monkeypatch
):
  _write_script(
    tmp_path / 'kubectl',
    f"""
case $3 in
  jobsets*) test $2 = get && echo 'a-1/ pong-1/Completed boxing-1/ ' ;;
esac
echo "$@" >> {tmp_path}/calls
""",
  )
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  queue = queues.KubernetesQueue('mine')
  queue.check()
  assert queue.look('/runs/boxing-1').core
  assert not queue.look('/runs/pong-1').any
  assert not queue.look('/runs/alien-1').any
  queue.clear('/runs/boxing-1')
  get, delete = (tmp_path / 'calls').read_text().splitlines()
  assert get.startswith('--namespace=mine get jobsets')
  assert 'delete jobsets.jobset.x-k8s.io boxing-1' in delete


@pytest.mark.parametrize(
  ('launcher', 'command'), [('slurm', 'squeue'), ('kubernetes', 'kubectl')]
)
def test_a_cluster_that_cannot_be_reached_is_named(
  launcher, command, tmp_path, monkeypatch
):
  monkeypatch.setenv('PATH', str(tmp_path))
  workdir = tmp_path / 'sweep'
  arguments = ['--games=pong', f'--workdir={workdir}', _RECIPE]
  with pytest.raises(
    cli.UsageError, match=f'--launcher={launcher}: .*{command}'
  ):
    sweep.main(['sweep', *arguments, f'--launcher={launcher}'])
  assert not workdir.exists()
