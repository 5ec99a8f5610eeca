import json
import pathlib
import subprocess
import sys

import pytest

from bmg.benchmarks.two_colors import __main__ as two_colors
from bmg.configs.schema import checks
from bmg.launch import cli


def _fake_python(folder, text):
  path = folder / 'python'
  path.write_text(f'#!/bin/sh\n{text}\n')
  path.chmod(0o755)
  return str(path)


def test_rows_hold_pairs_of_rates(tmp_path):
  out = tmp_path / 'out.json'
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'bmg.benchmarks.two_colors'),
      *('--config=configs/two_colors/horizons.py', '--agents=mg_k1'),
      *('--seeds=1,2', '--seconds=0.05', '--repeats=2', f'--out={out}'),
      f'--torch_python={_fake_python(tmp_path, "echo 50.0")}',
    ],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  rows = json.loads(out.read_text())['rows']
  assert [(row['agent'], row['seeds']) for row in rows] == [
    ('mg_k1', 1),
    ('mg_k1', 2),
  ]
  for row in rows:
    assert row['torch_rates'] == [50.0, 50.0]
    assert row['ratio'] == pytest.approx(sum(row['rates']) / 2 / 50.0)


@pytest.mark.parametrize(
  ('text', 'reason'),
  [('echo no torch >&2; exit 1', 'no torch'), ('exit 1', 'no reason given')],
)
def test_says_why_there_is_no_pytorch(tmp_path, text, reason):
  python = _fake_python(tmp_path, text)
  with pytest.raises(cli.UsageError, match=reason):
    two_colors.torch_steps_per_second(python, 0.01)
  pathlib.Path(python).unlink()
  with pytest.raises(cli.UsageError, match='No such file'):
    two_colors.torch_steps_per_second(python, 0.01)


@pytest.mark.parametrize(
  ('flag', 'reason'),
  [
    ('--seeds=0', '--seeds=0'),
    ('--seeds=x', '--seeds=x'),
    ('--agents=ac_fix', "Did you mean 'ac_fixed'"),
  ],
)
def test_bad_flags_are_named(flag, reason):
  with pytest.raises((cli.UsageError, checks.ConfigError), match=reason):
    two_colors.main(['', flag])
