import pathlib
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from bmg.configs.schema import checks
from bmg.configs.two_colors import schema
from bmg.experiments.two_colors import __main__ as command
from bmg.launch import cli

_ROOT = pathlib.Path(__file__).resolve().parents[3]
_SMALL = [
  '--config.num_seeds=2',
  '--config.log_period_steps=320',
  '--config.checkpoint_period_steps=640',
  '--config.agents.ac_fixed.hidden=(8,)',
  '--config.agents.q_fixed.hidden=(8,)',
]


def _command(workdir, *arguments):
  return [
    sys.executable,
    '-m',
    'bmg.experiments.two_colors',
    f'--workdir={workdir}',
    '--only=ac_fixed,q_fixed',
    *_SMALL,
    *arguments,
  ]


def _start(workdir, *arguments):
  return subprocess.Popen(
    _command(workdir, *arguments),
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.mark.system
def test_stop_and_resume(tmp_path):
  # Far more steps than there is time for.
  process = _start(tmp_path, '--config.num_steps=200000000')
  checkpoints = tmp_path / 'ac_fixed' / 'checkpoints'
  until = time.monotonic() + 120
  while not (checkpoints.is_dir() and any(checkpoints.glob('[0-9]*'))):
    assert time.monotonic() < until
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 0, output
  assert 'Stopped. The same command goes on with ac_fixed.' in output
  before = pd.read_csv(tmp_path / 'ac_fixed.csv')

  # Another length is another run: the history would not fit.
  other = _start(tmp_path, '--config.num_steps=6400')
  output, _ = other.communicate(timeout=120)
  assert other.returncode == 1
  assert 'config.num_steps = 6400' in output
  assert 'Traceback' not in output

  again = _start(tmp_path, '--config.num_steps=200000000')
  rows = len(before)
  checkpoint = max(int(path.name) for path in checkpoints.glob('[0-9]*'))
  while not any(
    int(path.name) > checkpoint for path in checkpoints.glob('[0-9]*[0-9]')
  ):
    assert time.monotonic() < until + 120
    assert again.poll() is None, again.stdout.read()
    time.sleep(0.1)
  again.send_signal(signal.SIGINT)
  output, _ = again.communicate(timeout=60)
  assert again.returncode == 0, output
  after = pd.read_csv(tmp_path / 'ac_fixed.csv')
  pd.testing.assert_frame_equal(after.iloc[:rows], before)
  assert not after.duplicated(['num_steps', 'seed']).any()


@pytest.mark.system
def test_whole_study_and_its_report(tmp_path):
  process = _start(
    tmp_path,
    '--config.num_steps=960',
    '--only=ac_fixed,q_fixed,q_bmg',
    # Many states to match in: XLA must not turn that into too large a product.
    '--config.agents.q_bmg.meta.bootstrap_length=160',
  )
  output, _ = process.communicate(timeout=200)
  assert process.returncode == 0, output
  report = pd.read_csv(tmp_path / 'report.csv')
  assert report['agent'].tolist() == ['ac_fixed', 'q_bmg', 'q_fixed']
  assert (report['num_steps'] == 960).all()
  dead = subprocess.run(
    [
      *(sys.executable, '-m', 'bmg.experiments.two_colors.units'),
      f'--workdir={tmp_path}',
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert dead.returncode == 0, dead.stderr
  # Not the actor-critic; one hidden layer, and two.
  rows = [line.split() for line in dead.stdout.splitlines()[1:]]
  assert [row[:2] for row in rows] == [
    ['q_bmg', '1'],
    ['q_bmg', '2'],
    ['q_fixed', '1'],
  ]


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    (['--only=ac_bgm'], ["'ac_bgm'", "'ac_bmg'"]),
    (['--config.agents.ac_bmg.meta.mode=bgm'], ["'bgm'", "'bmg'"]),
    (['--config.env.respawn=both'], ['env.respawn', 'item, all']),
    (['--config.num_seeds=0'], ['num_seeds', 'at least 1']),
    (['--config.agents.q_bmg.meta.mode=mg'], ['mode', 'not differentiable']),
    (['--config.agents.ac_mg.meta.inner_updates=0'], ['inner_updates']),
    (['--config.agents.ac_bmg.meta.fixed=1.5'], ['meta.fixed', '1.5']),
    (['--config.agents.ac_bmg.lerning_rate=1'], ["'learning_rate'"]),
    (['--config=configs/two_colors/tabel.py'], ['configs/two_colors/table.py']),
  ],
)
def test_bad_arguments_are_named(arguments, expected, monkeypatch):
  monkeypatch.chdir(_ROOT)
  with pytest.raises((cli.UsageError, checks.ConfigError)) as error:
    command.main(['two_colors', *arguments])
  for text in expected:
    assert text in str(error.value)


@pytest.mark.parametrize('recipe', cli.recipes(command.STUDIES))
def test_every_study_is_valid(recipe, monkeypatch):
  monkeypatch.chdir(_ROOT)
  get_config = cli._read_recipe(recipe, [])
  study = schema.from_config_dict(get_config)
  assert schema.from_config_dict(schema.to_dict(study)) == study
