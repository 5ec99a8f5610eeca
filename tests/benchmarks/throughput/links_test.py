import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from bmg.benchmarks.throughput import link_roles, link_windows, links
from bmg.launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, '-m', 'bmg.benchmarks.throughput.links')
SMALL = (
  '--config=configs/atari_local.py',
  '--config.env.game=boxing',
  '--config.actors.envs_per_actor=2',
  '--config.actors.unroll_length=5',
)


def make_window(counts, seconds=2.0, cpu=(1.0, 0.5), machine=4.0, turns=(0.1,)):
  start = link_windows.Reading(10.0, {'server': 3.0, 'taker': 7.0}, 100.0)
  end = link_windows.Reading(
    10.0 + seconds,
    {'server': 3.0 + cpu[0], 'taker': 7.0 + cpu[1]},
    100 + machine,
  )
  shares = [
    link_windows.Share(count, seconds, sent=10, received=990, turns=turns)
    for count in counts
  ]
  return link_windows.Window(start, end, {'taker': shares})


def test_summary_takes_medians_over_windows():
  windows = [
    make_window([100, 100], turns=[0.010, 0.020]),
    make_window([200, 200], turns=[0.020, 0.050], cpu=(2.0, 0.5)),
    make_window([400, 400], turns=[0.020, 0.020], machine=0.1),
  ]
  summary = link_windows.summarize(windows, ('taker',))
  # 200, 400 and 800 in two seconds.
  assert summary['windows'] == [100, 200, 400]
  assert summary['per_second'] == 200
  # 2,000 bytes by two processes, for 200, 400 and 800.
  assert summary['bytes_each'] == {'taker': 5.0}
  assert summary['cores'] == {'server': 0.5, 'taker': 0.25}
  # 1,000 * 0.5 / 100, 1.0 / 200, 0.5 / 400.
  assert summary['cpu_ms_each']['server'] == pytest.approx(5.0)
  assert summary['cpu_ms_each']['taker'] == pytest.approx(1.25)
  # (4 - 1.5) / 2, (4 - 2.5) / 2, none.
  assert summary['other_cores'] == pytest.approx(0.75)
  assert summary['turn_ms']['taker']['median'] == pytest.approx(20)
  assert 20 < summary['turn_ms']['taker']['p95'] <= 50


class FakeTime:
  """A clock that only sleep moves."""

  now = 100.0

  def monotonic(self):
    return self.now

  def sleep(self, seconds):
    self.now += seconds


def test_a_paced_writer_keeps_its_rate_and_does_not_catch_up(monkeypatch):
  clock = FakeTime()
  monkeypatch.setattr(link_roles, 'time', clock)
  wait = link_roles._pace(period_s=2.0, phase=0.5)
  starts = []
  # Its third write waits for room.
  for write_s in (0.25, 0.25, 7.0, 0.25, 0.25):
    wait()
    starts.append(clock.now)
    clock.now += write_s
  assert starts == [101.0, 103.0, 105.0, 112.0, 114.0]


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--links=ingest,fed', "'fed' is not a link; known: ingest, paced"),
    ('--counts=1,0', "--counts: '0' must be a whole number from 1"),
    ('--counts=two', "--counts: 'two' must be a whole number"),
    ('--actor_rate=0', 'actor_rate'),
    ('--repeats=0', 'repeats'),
  ],
)
def test_bad_command_lines_are_refused(argument, message):
  with pytest.raises(cli.UsageError, match=message):
    links.main(['links', *SMALL, argument])


@pytest.mark.system
def test_measures_links_with_real_processes(tmp_path):
  output = tmp_path / 'links.json'
  done = subprocess.run(
    [
      *COMMAND,
      *SMALL,
      *('--links=paced,relay,actions', '--counts=2', '--actor_rate=400'),
      '--config.replay.num_servers=2',
      *('--seconds=2', '--repeats=2', f'--out={output}'),
    ],
    cwd=ROOT,
    env={**os.environ, 'TMPDIR': str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=280,
  )
  assert done.returncode == 0, done.stderr
  assert not list(tmp_path.glob('bmg-links-*'))
  assert 'paced' in done.stdout
  results = json.loads(output.read_text())['links']

  # 20 emulator frames in an unroll of 5 steps: 20 unrolls/s of each writer.
  paced = results['paced']['2']
  assert paced['per_second'] == pytest.approx(40, rel=0.25)
  # Compressed: less than 9 frames of 42 x 42, and more than nothing.
  assert 300 < paced['bytes_each']['taker'] < 9 * 42 * 42
  # What writers send is what the learner gets.
  sent = paced['bytes_each']['writer']
  assert paced['bytes_each']['taker'] == pytest.approx(sent, rel=0.2)
  assert set(paced['cores']) == {'server', 'writer', 'taker'}
  assert paced['server']['memory'] > 50e6

  fetched = results['relay']['2']
  # 101,463 parameters in float32; Boxing has more actions than Pong.
  assert 405_852 < fetched['bytes_each']['client'] < 430_000
  assert len(fetched['windows']) == 2
  assert min(fetched['windows']) > 2
  assert fetched['turn_ms']['client']['p95'] > 0

  # Each of two games sends four frames of 42 x 42.
  chosen = results['actions']['2']
  per_step = 4 * 42 * 42
  assert per_step < chosen['bytes_each']['asker'] < 1.1 * per_step
  assert min(chosen['windows']) > 2


@pytest.mark.system
def test_sigterm_leaves_nothing_behind(tmp_path):
  benchmark = subprocess.Popen(
    [*COMMAND, *SMALL, '--counts=2', f'--out={tmp_path}/links.json'],
    cwd=ROOT,
    env={**os.environ, 'TMPDIR': str(tmp_path)},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    process = psutil.Process(benchmark.pid)
    children = []
    # Server, two writers, and who takes from them.
    while len(children) < 4:
      assert benchmark.poll() is None
      time.sleep(0.05)
      children = process.children()
    benchmark.send_signal(signal.SIGTERM)
    assert benchmark.wait(timeout=60) == 130
  finally:
    benchmark.kill()
  _, alive = psutil.wait_procs(children, timeout=10)
  assert not alive
  assert not list(tmp_path.glob('bmg-links-*'))
