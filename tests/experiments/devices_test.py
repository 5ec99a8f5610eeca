"""What XLA makes of an operation that is large enough to be split."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import jax
import jax.numpy as jnp
from bmg.experiments import devices
{}
function = jax.jit(lambda x: jnp.sin(jnp.exp(jnp.tanh(x))))
print(jax.local_device_count())
print(function.lower(jnp.zeros((4_096, 256))).compile().as_text())
"""


def _compile(setup):
  """Returns the number of devices and XLA's program, of another process."""
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_cpu_use_thunk_runtime=false',
  }
  done = subprocess.run(
    [sys.executable, '-c', _PROGRAM.format(setup)],
    env=environment,
    check=True,
    capture_output=True,
    text=True,
    timeout=120,
  )
  count, program = done.stdout.split('\n', 1)
  return int(count), program


def test_operations_stay_on_the_core_of_their_device():
  cores = len(os.sched_getaffinity(0))
  if cores == 1:
    pytest.skip('a single core: there is nothing to split operations among')
  assert 'outer_dimension_partitions' in _compile('')[1]
  count, program = _compile('devices.one_per_core()')
  assert count == cores
  assert 'outer_dimension_partitions' not in program
