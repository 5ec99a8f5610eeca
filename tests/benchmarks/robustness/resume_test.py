import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from bmg import errors
from bmg.benchmarks.robustness import resume
from tests.launch import processes, system_test

ENDS = {
  'launcher': 101.5,
  'imports': 109.5,
  'restoring': 110.0,
  'compiling': 112.0,
  'first update': 115.0,
}


def test_stages_last_from_the_end_of_the_one_before():
  seconds = resume.stage_seconds(100.0, ENDS)
  assert seconds == {
    'launcher': 1.5,
    'imports': 8.0,
    'restoring': 0.5,
    'compiling': 2.0,
    'first update': 3.0,
    'all': 15.0,
  }


def test_a_learner_that_restored_nothing_is_an_error():
  ends = {name: end for name, end in ENDS.items() if name != 'restoring'}
  with pytest.raises(errors.FatalError, match='lacks the end of: restoring'):
    resume.stage_seconds(100.0, ends)


def test_table_has_medians():
  stages = resume.stage_seconds(100.0, ENDS)
  repeats = [
    {**stages, 'all': total, 'stop before': 1.0} for total in (15.0, 90.0, 16.0)
  ]
  output = io.StringIO()
  Console(file=output, width=80).print(resume.make_table(repeats))
  (line,) = [line for line in output.getvalue().splitlines() if ' all ' in line]
  assert line.split() == ['all', '16.0', '15.0', '90.0']


@pytest.mark.system
def test_resumes_a_real_run(tmp_path):
  output = tmp_path / 'resume.json'
  done = subprocess.run(
    [
      *(
        sys.executable,
        '-m',
        'bmg.benchmarks.robustness.resume',
        *system_test.SMALL_RUN,
      ),
      *('--repeats=1', '--seconds=0', f'--out={output}'),
    ],
    cwd=processes.ROOT,
    env={**os.environ, 'TMPDIR': str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=280,
  )
  assert done.returncode == 0, done.stderr
  saved = json.loads(output.read_text())
  assert saved['first_session_s'] > 0
  (repeat,) = saved['repeats']
  assert all(repeat[stage] > 0 for stage in (*ENDS, 'stop before'))
  assert sum(repeat[stage] for stage in ENDS) == pytest.approx(repeat['all'])
  assert not list(tmp_path.glob('bmg-benchmark-*'))
