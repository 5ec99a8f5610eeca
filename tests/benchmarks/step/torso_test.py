import json
import pathlib
import subprocess
import sys

import pytest

from bmg.benchmarks.step import torso
from bmg.launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_ratios_are_to_strides_of_the_same_repeat():
  # The machine was twice as slow in the second repeat.
  strided = torso.Times([2.0, 4.0, 2.0], [6.0, 12.0, 6.0])
  blocks = torso.Times([1.0, 2.0, 1.0], [2.0, 4.0, 2.0])
  (states, ways, forward, ratio, gradient, gradient_ratio) = (
    list(column.cells)
    for column in torso.table(
      {'8': {'strided': strided, 'bytes': blocks}}
    ).columns
  )
  assert (states, ways) == (['8', '8'], ['strided', 'bytes'])
  assert (forward, ratio) == (['2.000', '1.000'], ['1.00', '2.00'])
  assert (gradient, gradient_ratio) == (['6.000', '2.000'], ['1.00', '3.00'])


def test_every_way_is_timed(tmp_path):
  output = tmp_path / 'torso.json'
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'bmg.benchmarks.step.torso'),
      '--config=configs/atari_local.py',
      *('--states=2,3', '--repeats=2', f'--out={output}'),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  assert 'floats' in done.stdout
  saved = json.loads(output.read_text())
  assert saved['device'] == 'cpu'
  assert list(saved['milliseconds']) == ['2', '3']
  for times in saved['milliseconds'].values():
    assert set(times) == set(torso.WAYS)
    for each in times.values():
      assert len(each['forward']) == len(each['gradient']) == 2
      assert min(each['forward'] + each['gradient']) > 0


def test_a_torso_without_strides_is_refused():
  with pytest.raises(cli.UsageError, match=r"'impala_2018': .*nature, small"):
    torso.main(['torso', '--config.agent.torso=impala_2018'])
