import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys

import psutil
import pytest

from bmg import errors
from bmg.benchmarks.harness import command, measurement, parts, report
from bmg.benchmarks.throughput import __main__ as throughput
from bmg.configs import base, schema
from bmg.launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, '-m', 'bmg.benchmarks.throughput')
SMALL = (
  '--config=configs/atari_local.py',
  '--config.actors.envs_per_actor=2',
  '--config.actors.unroll_length=5',
  '--config.replay.online_batch=2',
  '--config.replay.replay_batch=2',
  '--config.replay.online_capacity=4',
  '--config.replay.min_replay_size=4',
  '--config.evaluator.num_episodes=1',
  '--config.evaluator.num_envs=1',
  '--config.env.game=boxing',
)


def make_result(rate, cpu_per_frame, seconds=2.0, **fields):
  frames = int(rate * seconds)
  window = measurement.Window(frames, seconds, {'x': frames * cpu_per_frame})
  return measurement.Result((window,), **fields)


def make_config(num_actors=1, **meta):
  config = base.get_config()
  config.actors.num_actors = num_actors
  config.meta.update(meta)
  return schema.from_config_dict(config)


class FakeMachine:
  """A clock, and a process that uses a quarter of the time."""

  now = 100.0

  def clock(self):
    return self.now

  def cpu_seconds(self):
    return {'actor': self.now / 4}


def test_meter_drops_the_warm_up_and_ends_windows_with_whole_chunks():
  machine = FakeMachine()
  meter = measurement.Meter(1.0, 2, machine.cpu_seconds, machine.clock)
  num_chunks = 0
  full = False
  while not full:
    machine.now += 0.75
    full = meter.add(30, wait_insert=0.1 * num_chunks)
    num_chunks += 1
  # The warm-up of 2 s takes three chunks, each window of 1 s two.
  assert num_chunks == 3 + 2 + 2
  assert [window.frames for window in meter.windows] == [60, 60]
  assert [window.seconds for window in meter.windows] == [1.5, 1.5]
  assert [window.cpu_seconds for window in meter.windows] == [
    {'actor': 0.375}
  ] * 2
  assert [window.wait_insert for window in meter.windows] == pytest.approx(
    [0.35, 0.55]
  )


def test_result_takes_medians_over_windows():
  result = measurement.Result(
    tuple(
      measurement.Window(frames, 2.0, {'a': 1.0, 'b': cpu}, wait_data=wait)
      for frames, cpu, wait in ((100, 0.5, 0.2), (400, 1.0, 0.1), (200, 2, 0.6))
    )
  )
  assert result.frames_per_second == 100
  # 1.5 / 100, 2 / 400 and 3 / 200 seconds.
  assert result.cpu_seconds_per_frame == 0.015
  assert result.cores == {'a': 0.5, 'b': 0.5}
  assert result.wait_data == 0.2
  assert result.wait_insert is None


def test_limit_is_that_of_the_slowest_part_and_of_the_cores():
  results = {
    'actor': make_result(6000, 1 / 6000),
    'replay': make_result(60_000, 1 / 30_000),
    'learner-none': make_result(10_000, 1 / 10_000),
    'learner-bmg-L1': make_result(4000, 1 / 5000),
  }
  bound = report.limit(results, make_config(), 'none', num_cores=2)
  assert bound.slowest_part == 'actor'
  assert bound.slowest_alone == 6000
  # (5 + 1 + 3) / 30,000 CPU seconds per frame.
  assert bound.shared_cores == pytest.approx(2 * 30_000 / 9)
  bound = report.limit(results, make_config(), 'bmg', num_cores=2)
  assert (bound.slowest_part, bound.slowest_alone) == ('learner-bmg-L1', 4000)
  # Three actors, but only two cores for them.
  bound = report.limit(results, make_config(num_actors=3), 'none', num_cores=2)
  assert (bound.slowest_part, bound.slowest_alone) == ('learner-none', 10_000)
  del results['learner-none']
  results['learner-none'] = make_result(20_000, 1 / 20_000)
  bound = report.limit(results, make_config(num_actors=3), 'none', num_cores=2)
  assert (bound.slowest_part, bound.slowest_alone) == ('actor', 12_000)


def test_an_actor_is_compared_with_its_games_and_inference_in_turns():
  results = {
    'environment': make_result(6000, 1 / 6000),
    'inference': make_result(3000, 1 / 3000),
    'actor': make_result(1800, 1 / 1800),
  }
  cells = [
    list(column.cells) for column in report.acting_table(results).columns
  ]
  # 1/6 + 1/3 = 1/2.
  assert cells == [['1,800'], ['2,000'], ['90 %']]
  del results['inference']
  assert report.acting_table(results).row_count == 0


def test_no_limit_without_all_of_its_parts():
  results = {
    'actor': make_result(6000, 1 / 6000),
    'replay': make_result(60_000, 1 / 30_000),
    'learner-bmg-L1': make_result(4000, 1 / 5000),
    'end_to_end-bmg': make_result(3000, 1 / 3000),
    'end_to_end-none': make_result(3000, 1 / 3000),
  }
  assert set(report.limits(results, make_config(), 2)) == {'bmg'}
  longer = make_config(bootstrap_length=3)
  assert report.limits(results, longer, 2) == {}


def test_comparison_of_two_saved_reports(tmp_path, capsys):
  paths = []
  for rate in (2000, 5000):
    part = make_result(rate, 1e-4, peak_memory={'x': 1}).to_dict()
    path = tmp_path / f'{rate}.json'
    path.write_text(json.dumps({'parts': {'actor': part}}))
    paths.append(str(path))
  assert (
    throughput.main(
      ['benchmark', '--config=a.py', f'--compare={",".join(paths)}']
    )
    == 0
  )
  words = capsys.readouterr().out.split()
  assert words[-4:] == ['actor', '2,000', '5,000', '2.50']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([*SMALL, '--parts=actor,learnr'], "'learnr' is not a part"),
    ([*SMALL, '--repeats=0'], 'repeats'),
    (['--compare=a.json'], 'takes two files, not 1'),
    (['--compare=nowhere.json,a.json'], 'nowhere.json is not a file'),
  ],
)
def test_bad_command_lines_are_refused(arguments, message):
  with pytest.raises(cli.UsageError, match=message):
    throughput.main(['benchmark', *arguments])


def test_a_prefix_selects_all_its_parts():
  assert throughput._select(['end_to_end', 'learner-mg', 'learner-bmg']) == [
    'learner-mg',
    'learner-bmg-L1',
    'learner-bmg-L4',
    'end_to_end-none',
    'end_to_end-bmg',
  ]


def test_a_process_that_fails_is_reported_with_its_last_words(tmp_path):
  script = 'print("no such game"); raise SystemExit(4)'
  command = [sys.executable, '-S', '-c', script]
  with parts.start('actor', command, None, {}, str(tmp_path)) as process:
    process.popen.wait()
    with pytest.raises(errors.FatalError) as raised:
      process.check()
  assert "'actor'" in str(raised.value)
  assert 'exit status 4' in str(raised.value)
  assert 'no such game' in str(raised.value)


@pytest.mark.system
def test_parts_are_traced(tmp_path, monkeypatch):
  monkeypatch.setattr(command, 'clean_up_on_sigterm', lambda: None)
  traces = tmp_path / 'traces'
  arguments = (
    '--parts=inference',
    f'--profile={traces}',
    *('--seconds=0.2', '--repeats=1', f'--out={tmp_path}/small.json'),
  )
  assert throughput.main(['throughput', *SMALL, *arguments]) == 0
  (trace,) = traces.glob('inference/**/*.trace.json.gz')
  with gzip.open(trace, 'rt') as file:
    names = {event.get('name', '') for event in json.load(file)['traceEvents']}
  # Python's functions as well as XLA's.
  assert any('policy.py' in name for name in names)
  assert any('PjRt' in name for name in names)
  with pytest.raises(cli.UsageError, match='is not empty; take a new folder'):
    throughput.main(['throughput', *SMALL, *arguments])


@pytest.mark.system
def test_measures_parts_and_a_whole_run(tmp_path):
  output = tmp_path / 'results' / 'small.json'
  done = subprocess.run(
    [
      *COMMAND,
      *SMALL,
      '--parts=environment,actor,replay,learner-none,end_to_end-none',
      '--config.actors.env_groups=2',
      *('--seconds=0.5', '--repeats=2', f'--out={output}'),
    ],
    cwd=ROOT,
    env={**os.environ, 'TMPDIR': str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=280,
  )
  assert done.returncode == 0, done.stderr
  saved = json.loads(output.read_text())
  processes = {
    'environment': {'environment'},
    'actor': {'actor'},
    'replay': {'server', 'writer', 'reader'},
    'learner-none': {'learner'},
    'end_to_end-none': {
      *('launcher', 'replay-0', 'learner-0', 'actor-0', 'evaluator-0')
    },
  }
  assert set(saved['parts']) == set(processes)
  for name, part in saved['parts'].items():
    assert len(part['windows']) == 2
    for window in part['windows']:
      assert set(window['cpu_seconds']) == processes[name]
      # Two unrolls of five steps of four frames.
      assert window['frames'] > 0
      assert window['frames'] % 40 == 0
  whole = saved['parts']['end_to_end-none']
  assert min(whole['peak_memory'].values()) > 10e6
  assert 0 <= whole['wait_data'] <= 1
  assert saved['limits']['none']['slowest_alone'] > 0
  assert not list(tmp_path.glob('bmg-benchmark-*'))


def test_a_stop_in_the_middle_of_a_fork_is_not_lost(tmp_path):
  # Python prints and forgets what a hook at a fork raises.
  program = f"""
import os, signal
from bmg.benchmarks.harness import parts
# A parent in the background would have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
  with parts.start('child', ['sleep', '60'], None, {{}}, {str(tmp_path)!r}):
    print('went on')
except KeyboardInterrupt:
  print('stopped')
"""
  command = [sys.executable, '-c', program]
  ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert (ended.stdout, ended.returncode) == ('stopped\n', 0)


@pytest.mark.system
def test_sigterm_leaves_nothing_behind(tmp_path):
  benchmark = subprocess.Popen(
    [*COMMAND, *SMALL, '--parts=replay', f'--out={tmp_path}/results.json'],
    cwd=ROOT,
    env={**os.environ, 'TMPDIR': str(tmp_path)},
    stderr=subprocess.DEVNULL,
  )
  try:
    process = psutil.Process(benchmark.pid)
    children = []
    while len(children) < 3:
      assert benchmark.poll() is None
      children = process.children()
    benchmark.send_signal(signal.SIGTERM)
    assert benchmark.wait(timeout=60) == 130
  finally:
    benchmark.kill()
  _, alive = psutil.wait_procs(children, timeout=10)
  assert not alive
  assert not list(tmp_path.glob('bmg-benchmark-*'))
