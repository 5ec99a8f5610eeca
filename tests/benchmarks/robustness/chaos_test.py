import collections
import contextlib
import csv
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import types

import pytest

from bmg.benchmarks.harness import live_run, parts
from bmg.benchmarks.robustness import chaos, kills, watch
from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.run import topology
from tests.launch import processes

LEARNER = topology.NodeId('learner', 0)
ACTOR = topology.NodeId('actor', 0)
NUM_UPDATES = 60
NUM_FRAMES = NUM_UPDATES * processes.small_config().frames_per_update
# Kills each node once, the learner after it has saved.
SEED = 2
# Learns an update every tenth of a second, saves every fifth, and goes on from
# the newest, or from some updates before that.
FAKE_NODES = f"""
import json
LOST = 0
NUM_UPDATES = {NUM_UPDATES}
FRAMES = {processes.small_config().frames_per_update}
workdir = pathlib.Path(args['workdir'])
finished = workdir / 'state' / 'finished.json'
checkpoints = workdir / 'checkpoints'
records = workdir / 'learner.jsonl'
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
heartbeat()
if args['group'] == 'learner':
  saved = [int(path.name) for path in checkpoints.glob('*')]
  update = max(saved, default=LOST) - LOST
  if saved:
    print(f'Restored checkpoint {{update}} from somewhere.', flush=True)
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    kept = [row for row in rows if row['num_frames'] <= update * FRAMES]
    records.write_text(''.join(json.dumps(row) + '\\n' for row in kept))
  while update < NUM_UPDATES:
    time.sleep(0.1)
    update += 1
    row = {{'num_frames': update * FRAMES, 'seconds': time.time()}}
    with records.open('a') as file:
      file.write(json.dumps(row) + '\\n')
    if update % 5 == 0:
      (checkpoints / str(update)).mkdir(parents=True, exist_ok=True)
  lines = [
    f'{{frames}},{{frames // FRAMES}}'
    for frames in range(FRAMES, (update + 1) * FRAMES, FRAMES)
  ]
  (workdir / 'learner.csv').write_text(
    '\\n'.join(['num_frames,episode_return', *lines, ''])
  )
  (workdir / 'evaluation.csv').write_text(
    'num_frames,mean_return\\n0,1.0\\n9,3.5\\n'
  )
  finished.write_text(json.dumps({{'num_frames': update * FRAMES}}))
while args['group'] != 'evaluator' or not finished.exists():
  time.sleep(0.05)
"""


def plan_some(num_kills, seed=0):
  config = processes.small_config(num_actors=2)
  return kills.plan_kills(
    num_kills, 600.0, topology.nodes(schema.to_dict(config)), seed
  )


def make_kill(node=ACTOR, **fields):
  values = {
    'seconds': 7.0,
    'pid': 1,
    'num_frames': 900,
    'back_s': 2.0,
    'new_frames_s': 3.0,
    **fields,
  }
  return kills.Kill(group=node.group, index=node.index, **values)


def make_outcome(**fields):
  values = {
    'exit_status': 0,
    'num_frames': 1000,
    'seconds': 50.0,
    'hangs': [],
    'longest_silence_s': 5.0,
    **fields,
  }
  return kills.Outcome(**values)


def test_kills_are_spread_over_the_whole_time():
  moments = [kill.seconds for kill in plan_some(1000)]
  assert moments[-1] == pytest.approx(600)
  gaps = [after - before for before, after in itertools.pairwise(moments)]
  assert min(gaps) > 0
  # The standard deviation of exponential gaps is their mean.
  assert statistics.mean(gaps) == pytest.approx(0.6, rel=0.05)
  assert statistics.stdev(gaps) == pytest.approx(0.6, rel=0.15)


def test_groups_are_hit_equally_often_and_so_are_their_nodes():
  counts = collections.Counter(kill.node for kill in plan_some(4000))
  for group in ('replay', 'learner', 'evaluator'):
    assert counts[topology.NodeId(group, 0)] == pytest.approx(1000, rel=0.1)
  for index in range(2):
    assert counts[topology.NodeId('actor', index)] == pytest.approx(
      500, rel=0.15
    )


def test_the_seed_decides():
  assert plan_some(20, seed=3) == plan_some(20, seed=3)
  assert plan_some(20, seed=3) != plan_some(20, seed=4)


def test_records_that_repeat_or_go_back_are_found():
  assert kills.record_problems('learner.csv', [10, 20, 40]) == []
  problems = kills.record_problems('learner.csv', [10, 20, 20, 40, 30, 50])
  # The header is line 1.
  assert problems == [
    'learner.csv: line 4 is of 20 frames, the one before it of 20',
    'learner.csv: line 6 is of 30 frames, the one before it of 40',
  ]


@pytest.mark.parametrize(
  ('kill', 'problem'),
  [
    (make_kill(back_s=None, new_frames_s=None), 'actor-0.*did not come back'),
    (make_kill(back_s=61.0), 'actor-0, killed at 7 s, .*after 61 s'),
    (
      make_kill(LEARNER, saved_frames=800, restored_frames=400),
      'learner-0.*went on from 400 frames, though 800',
    ),
  ],
)
def test_nodes_that_do_not_recover_are_named(kill, problem):
  good = [
    make_kill(),
    make_kill(LEARNER, saved_frames=800, restored_frames=800),
    # It may have saved between our look and its end.
    make_kill(LEARNER, saved_frames=800, restored_frames=880),
  ]
  assert kills.kill_problems(good, 3, deadline_s=60.0) == []
  (found,) = kills.kill_problems([*good, kill], 4, deadline_s=60.0)
  assert re.search(problem, found)


def test_a_run_that_ended_too_early_is_named():
  (problem,) = kills.kill_problems([make_kill()], 3, deadline_s=60.0)
  assert '1 of 3 kills' in problem
  assert '--config.num_frames' in problem


@pytest.mark.parametrize(
  ('fields', 'problem'),
  [
    ({'exit_status': 1}, 'status 1'),
    ({'exit_status': None}, 'given up'),
    ({'num_frames': 1040}, 'at 1040 frames, not at 1000'),
    ({'hangs': [(30.0, 125.0)]}, 'no new frame for 125 s from 30 s on'),
    ({'orphans': ['77: python -m x']}, 'left behind: process 77: python -m x'),
  ],
)
def test_runs_that_end_otherwise_are_found(fields, problem):
  assert kills.outcome_problems(make_outcome(), 1000) == []
  (found,) = kills.outcome_problems(make_outcome(**fields), 1000)
  assert problem in found


def test_summary_is_by_group():
  log = [make_kill(back_s=seconds) for seconds in (1.0, 9.0, 2.0, None)]
  log.append(make_kill(LEARNER, saved_frames=800, restored_frames=840))
  summary = kills.summarize(log)
  assert summary['actor'] == {
    'kills': 4,
    'back_s': {'median': 2.0, 'max': 9.0},
    'new_frames_s': {'median': 3.0, 'max': 3.0},
    'lost_frames': None,
  }
  assert summary['learner']['lost_frames'] == {'median': 60, 'max': 60}
  assert 'replay' not in summary


class FakeRun:
  """Of an actor that is killed, and of rows that come when told to."""

  launcher = types.SimpleNamespace(
    popen=types.SimpleNamespace(poll=lambda: None)
  )

  def __init__(self):
    self.now = 0.0
    self.frames = 100

  def row(self):
    return {'num_frames': self.frames, 'seconds': self.frames}

  def pid(self, node):
    return int(1e9 + self.now)

  def finished_at(self):
    return None


@pytest.mark.parametrize(
  ('kills_at', 'row_at', 'hangs'),
  [
    ([50, 140, 230], 250, []),
    ([50, 140], 250, [(140, 110)]),
    # Before a kill as well as after it.
    ([110], 115, [(0, 110)]),
    ([], 99, []),
    ([], 150, [(0, 150)]),
  ],
)
def test_a_hang_is_a_silence_that_no_kill_explains(
  kills_at, row_at, hangs, monkeypatch
):
  monkeypatch.setattr(os, 'kill', lambda pid, sig: None)
  run = FakeRun()
  planned = [kills.Planned(seconds, ACTOR) for seconds in kills_at]
  watcher = watch.Watch(
    *(run, processes.small_config(), planned, 100.0, lambda kill: None),
    clock=lambda: run.now,
  )
  for run.now in range(row_at + 1):
    run.frames += run.now == row_at
    assert watcher.look()
  outcome = watcher.outcome()
  assert len(watcher.log) == len(kills_at)
  assert outcome.hangs == hangs
  assert outcome.longest_silence_s == row_at


@pytest.fixture
def left_over(tmp_path):
  """Starts processes that nobody stops; returns their pids."""
  started = []

  def start(arguments=(), **kwargs):
    command = [sys.executable, '-S', '-c', 'import time; time.sleep(60)']
    started.append(subprocess.Popen([*command, *arguments], **kwargs))
    return started[-1].pid

  yield start
  for process in started:
    process.kill()
    process.wait()


def test_processes_that_a_run_left_behind_are_found(
  tmp_path, left_over, monkeypatch
):
  monkeypatch.setattr(live_run, '_VANISH_S', 0.1)
  folder = tmp_path / 'run'
  other = tmp_path / 'run2'
  folder.mkdir()
  other.mkdir()
  assert live_run.find_orphans(str(folder)) == []
  pids = {
    left_over([f'--workdir={folder}']),
    left_over(cwd=folder),
    left_over(env={**os.environ, 'SOME_FILE': f'{folder}/state/file'}),
  }
  left_over([f'--workdir={other}'], cwd=other)
  found = live_run.find_orphans(str(folder))
  assert {int(text.partition(':')[0]) for text in found} == pids
  assert f'--workdir={folder}' in '\n'.join(found)


@pytest.fixture
def disturb(tmp_path, monkeypatch):
  """Runs the command on fake nodes; returns its exit status and its folder."""

  def disturb(script):
    path = tmp_path / 'node.py'
    path.write_text(processes.FAKE_PREAMBLE + script)

    @contextlib.contextmanager
    def start(name, arguments, config, workdir, folder):
      os.mkdir(workdir)
      command = [
        *(sys.executable, '-m', 'tests.launch.fake_run'),
        *(workdir, str(path)),
      ]
      with parts.start(name, command, None, {}, folder) as launcher:
        yield live_run.LiveRun(launcher, workdir)

    monkeypatch.setenv('FAKE_LAUNCH', '{}')
    monkeypatch.setattr(live_run, 'start', start)
    # The test goes on after the command.
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    folder = tmp_path / 'out'
    status = chaos.main(
      [
        *('chaos', '--noreference', f'--out={folder}'),
        *('--kills=4', '--minutes=0.03', f'--seed={SEED}'),
        f'--config.num_frames={NUM_FRAMES}',
      ]
    )
    return status, folder

  return disturb


@pytest.mark.system
def test_a_run_is_disturbed_and_followed_to_its_end(disturb):
  status, folder = disturb(FAKE_NODES)
  results = json.loads((folder / 'chaos.json').read_text())
  assert results['problems'] == []
  assert status == 0
  assert {
    name: group['kills'] for name, group in results['groups'].items()
  } == {**{'replay': 1, 'learner': 1, 'actor': 1, 'evaluator': 1}}
  run = results['runs']['disturbed']
  assert run['num_frames'] == NUM_FRAMES
  # The learner needs so long, even without the kills.
  assert run['seconds'] > 0.1 * NUM_UPDATES
  assert run['training_return'] == (55 + 60) / 2
  assert run['evaluation_return'] == 3.5
  with (folder / 'kills.csv').open() as file:
    rows = {row['group']: row for row in csv.DictReader(file)}
  assert len(rows) == 4
  for row in rows.values():
    # Its supervisor waits for half a second before it starts a node again.
    assert 0.5 < float(row['back_s']) < float(row['new_frames_s'])
  learner = rows['learner']
  assert int(learner['saved_frames']) == int(learner['restored_frames']) > 0


@pytest.mark.system
def test_a_learner_that_forgets_what_it_saved_is_found(disturb, capsys):
  status, _ = disturb(FAKE_NODES.replace('LOST = 0', 'LOST = 5'))
  assert status == 1
  output = ' '.join(capsys.readouterr().out.split())
  assert re.search(r'Problem: learner-0.*went on from .* were saved', output)
  assert 'Kills: 4. Problems: 1.' in output


def test_an_old_folder_is_refused(tmp_path):
  (tmp_path / 'kills.csv').touch()
  with pytest.raises(cli.UsageError, match=r'--out=.* is not empty'):
    chaos.main(['chaos', f'--out={tmp_path}'])
