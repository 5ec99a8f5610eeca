"""The command, as a user runs it."""

import json
import os
import re
import signal
import subprocess
import sys

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

from bmg.experiments.few_shot import __main__ as command
from bmg.launch import cli

pytestmark = pytest.mark.system

_TINY = (
  '--config=configs/few_shot/sinusoid.py',
  '--config.num_seeds=2',
  '--config.num_eval_tasks=4',
  '--config.network.hidden=(8,)',
  '--config.checkpoint_period_s=0.0',
  '--config.task.num_support=3',
)
_TIMEOUT_S = 100


def _start(*flags):
  return subprocess.Popen(
    [sys.executable, '-m', 'bmg.experiments.few_shot', *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=os.environ | {'PYTHONUNBUFFERED': '1'},
  )


def _finish(process):
  output, _ = process.communicate(timeout=_TIMEOUT_S)
  return process.returncode, output


@pytest.fixture(autouse=True)
def _signal_handlers():
  numbers = (signal.SIGINT, signal.SIGTERM)
  handlers = [signal.getsignal(number) for number in numbers]
  yield
  for number, handler in zip(numbers, handlers, strict=True):
    signal.signal(number, handler)


def test_stopped_resumed_and_reported(tmp_path, capsys):
  flags = [
    *_TINY,
    '--config.num_meta_steps=3000',
    '--config.eval_period=1000',
    '--only=maml_k1',
    f'--workdir={tmp_path}',
  ]
  process = _start(*flags)
  lines = []
  for line in process.stdout:
    lines.append(line)
    if 'meta-step 1000/3000' in line:
      process.send_signal(signal.SIGTERM)
      break
  status, output = _finish(process)
  output = ''.join(lines) + output
  assert status == 0, output
  assert 'the same command goes on' in output
  assert 'Traceback' not in output
  first = pd.read_csv(tmp_path / 'maml_k1' / 'seed_1' / 'evaluation.csv')
  assert 2 <= len(first) <= 3

  status, output = _finish(_start(*flags))
  assert status == 0, output
  assert 'seed 1: meta-step 1000/3000' not in output
  pattern = r'seed 2: .*3000/3000, .*/s, 0m00s left, .*validation MSE \d'
  assert re.search(pattern, output)
  rows = pd.read_csv(tmp_path / 'maml_k1' / 'seed_1' / 'evaluation.csv')
  assert list(rows['meta_step']) == [0, 1000, 2000, 3000]
  assert (np.diff(rows['seconds']) > 0).all()
  pd.testing.assert_frame_equal(rows[: len(first)], first)
  table = pd.read_csv(tmp_path / 'summary.csv')
  assert list(table['learner']) == ['maml_k1']
  assert list(table['num_seeds']) == [2]
  assert imageio.imread(tmp_path / 'curves.png').ndim == 3

  # All is done: it only reports.
  assert command.main(['few_shot', *flags]) == 0
  output = capsys.readouterr().out
  assert 'seed' not in output.replace('num_seeds', '')
  assert 'summary.csv' in output


def test_another_configuration_is_refused(tmp_path):
  path = tmp_path / 'config.json'
  path.write_text('{"seed": 1, "num_seeds": 2}')
  flags = [*_TINY, '--config.seed=3', f'--workdir={tmp_path}']
  status, output = _finish(_start(*flags))
  assert status == cli.USAGE_STATUS
  assert output.startswith('error: config.seed = 3: ')
  assert 'was made with 1;' in output
  assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--only=maml_k7'], r"learners = 'maml_k7': .*mean 'maml"),
    (['--config.learners.maml_k5.kind=mamal'], r"kind = 'mamal'.*mean 'maml'"),
    (['--config.learners.maml_k5.inner_update=1'], "mean 'inner_updates'"),
    (['--config=configs/few_shot/digit.py'], 'mean .*few_shot/digits.py'),
    (['--config=configs/few_shot/miniimagenet.py'], r'config\.data\.folder'),
    (['--checksum'], r'config\.data\.folder'),
    (['--config.task.num_shots=1'], r'num_shots.*not a known field'),
    (['--workdri=x'], 'workdri'),
  ],
)
def test_bad_command_lines_are_explained(flags, words, tmp_path):
  with pytest.raises((cli.UsageError, ValueError), match=words):
    command.main(['few_shot', f'--workdir={tmp_path}', *flags])


def test_a_folder_is_not_claimed_by_a_study_that_cannot_run(tmp_path):
  # The default recipe is the one of digits, with 24 classes to train on.
  flags = ['--config.task.num_ways=30', f'--workdir={tmp_path}']
  with pytest.raises(RuntimeError, match='num_ways = 30'):
    command.main(['few_shot', *flags])
  assert not list(tmp_path.iterdir())


def test_checksum_is_printed(tmp_path, capsys):
  (tmp_path / 'a').write_bytes(b'one')
  flags = [
    '--config=configs/few_shot/omniglot.py',
    f'--config.data.folder={tmp_path}',
    '--checksum',
  ]
  assert command.main(['few_shot', *flags]) == 0
  assert re.fullmatch('[0-9a-f]{64}\n', capsys.readouterr().out)


def test_the_others_go_on_when_one_learner_diverges(tmp_path, capsys):
  flags = [
    *_TINY,
    '--only=maml_k1,bmg_k1_l1',
    '--config.num_seeds=1',
    '--config.num_meta_steps=20',
    '--config.eval_period=20',
    '--config.learners.maml_k1.inner_learning_rate=1e30',
    f'--workdir={tmp_path}',
  ]
  with pytest.raises(RuntimeError, match='maml_k1: the loss is not finite'):
    command.main(['few_shot', *flags])
  assert 'left out: ' in capsys.readouterr().out
  table = pd.read_csv(tmp_path / 'summary.csv')
  assert list(table['learner']) == ['bmg_k1_l1']
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert saved['learners']['maml_k1']['inner_learning_rate'] == 1e30
