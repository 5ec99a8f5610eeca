import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from bmg.benchmarks.step import losses
from bmg.launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[3]
# The least that there can be.
SMALL = (
  '--config.actors.unroll_length=2',
  '--config.replay.online_batch=1',
  '--config.replay.replay_batch=1',
  '--config.meta.mode=none',
)


def test_differences_are_relative_to_the_largest_value():
  before = {'loss/total': [4.0, 0.0], 'zero': [0.0], 'gone': [1.0]}
  after = {'loss/total': [4.0, 0.1], 'zero': [0.5], 'new': [1.0]}
  assert losses.differences(before, after) == {
    'loss/total': pytest.approx(0.025),
    'zero': 0.5,
  }


def test_what_is_not_finite_is_not_the_same():
  assert not losses.same({'loss/total': float('nan'), 'loss/value': 0.0})
  assert not losses.same({'loss/total': 1e-3, 'loss/value': 0.0})
  assert not losses.same({'grad_norm': 0.0})
  assert losses.same({'loss/total': 1e-6, 'loss/value': 0.0, 'other': 1.0})


def test_another_loss_is_found_and_the_same_one_is_not(tmp_path):
  changed = tmp_path / 'changed'
  for room in ('agents', 'bmg', 'configs', 'engine', 'evaluation', 'learner'):
    shutil.copytree(ROOT / room, changed / room)
  module = changed / 'agents' / 'losses.py'
  text = module.read_text()
  assert text.count('reduce(0.5 * ') == 1
  module.write_text(text.replace('reduce(0.5 * ', 'reduce(0.505 * '))

  def compare(before):
    output = tmp_path / 'losses.json'
    done = subprocess.run(
      [
        *(
          sys.executable,
          '-m',
          'bmg.benchmarks.step.losses',
          f'--before={before}',
        ),
        *('--updates=2', f'--out={output}', *SMALL),
      ],
      cwd=ROOT,
      capture_output=True,
      text=True,
      timeout=300,
    )
    return done, json.loads(output.read_text())['differences']

  done, differences = compare(ROOT)
  assert done.returncode == 0, done.stderr
  assert 'The losses are the same' in done.stdout
  assert differences['loss/value'] == 0
  done, differences = compare(changed)
  assert done.returncode == 1
  assert 'NOT the same' in done.stdout
  assert differences['loss/value'] == pytest.approx(0.01, rel=0.1)


def test_what_is_no_checkout_is_refused(tmp_path):
  with pytest.raises(cli.UsageError, match=r'--before=.*not a checkout'):
    losses.main(['losses', f'--before={tmp_path}'])
  with pytest.raises(cli.UsageError, match=r'--before=: is not a checkout'):
    losses.main(['losses'])
