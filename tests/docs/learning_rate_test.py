"""The worked example of docs/engine.md does what the page says."""

import os
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).parents[2]
_EXAMPLE = 'docs/examples/learning_rate.py'


def test_learned_rate_beats_the_start_and_nears_the_best():
  # Optimised code, unlike the rest of the tests: it computes more than that it
  # compiles.
  environment = os.environ | {'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}
  process = subprocess.run(
    [sys.executable, _EXAMPLE],
    cwd=_ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert process.returncode == 0, process.stderr
  header, *rows = process.stdout.splitlines()
  assert 'learned rate' in header
  first, *_, last = ([float(cell) for cell in row.split()] for row in rows)
  at_start, at_best, learned, rate = last
  # Observation noise alone is 0.25; 0.3 is about the best fixed rate.
  assert at_start > 1.0
  assert learned < 1.05 * at_best
  assert 0.1 < rate < 0.5
  # Halfway there in the first row.
  assert 0.001 < first[3] < rate


def test_the_guide_quotes_the_example_as_it_is():
  guide = (_ROOT / 'docs/engine.md').read_text()
  assert (_ROOT / _EXAMPLE).read_text() in guide
