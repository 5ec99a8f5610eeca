import json
import os
import pathlib
import subprocess
import sys

import pytest

from bmg.benchmarks.throughput import reverb_paths
from bmg.launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, '-m', 'bmg.benchmarks.throughput.reverb_paths')
SMALL = (
  '--config=configs/atari_local.py',
  '--config.actors.envs_per_actor=2',
  '--config.actors.unroll_length=5',
)


@pytest.mark.system
def test_every_way_writes_and_reads_unrolls(tmp_path):
  output = tmp_path / 'paths.json'
  done = subprocess.run(
    [*COMMAND, *SMALL, '--seconds=0.2', '--repeats=2', f'--out={output}'],
    cwd=ROOT,
    env={**os.environ, 'TMPDIR': str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert done.returncode == 0, done.stderr
  paths = json.loads(output.read_text())['paths']
  assert list(paths) == list(reverb_paths.PATHS)
  for cost in paths.values():
    assert len(cost['rates']) == 2
    assert min(cost['rates']) > 1
    # Of one frame alone: a copy of 42 x 42 bytes.
    assert min(cost['client']) > 1
    assert min(cost['server']) >= 0
  assert 'read-dataset-8' in done.stdout


def test_an_unknown_way_is_refused():
  with pytest.raises(cli.UsageError, match="'write' is not a way; known: wr"):
    reverb_paths.main(['reverb_paths', *SMALL, '--paths=write'])
