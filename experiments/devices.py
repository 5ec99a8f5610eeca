"""Has JAX use a CPU for many small computations side by side."""

import contextlib
import os
from collections.abc import Iterator

import jax


def one_per_core() -> None:
  """Makes a device of every core; to be called before JAX computes anything.

  Seeds are then spread over cores as they are over accelerators. Operations
  this small only lose by being split among threads, and XLA's older runtime
  spends less on each: docs/two_colors.md says how much.
  """
  jax.config.update('jax_num_cpu_devices', len(os.sched_getaffinity(0)))
  # The last of several equal flags counts: the user's own.
  flags = (
    '--xla_cpu_multi_thread_eigen=false',
    '--xla_cpu_use_thunk_runtime=false',
    # Divisions by the same number become products with its reciprocal. All else
    # stays: the flags after the first two are for what fast mathematics breaks.
    '--xla_cpu_enable_fast_math=true',
    '--xla_cpu_fast_math_honor_division=false',
    '--xla_cpu_fast_math_honor_functions=true',
    '--xla_cpu_fast_math_honor_infs=true',
    '--xla_cpu_fast_math_honor_nans=true',
    os.environ.get('XLA_FLAGS', ''),
  )
  os.environ['XLA_FLAGS'] = ' '.join(flags).strip()


@contextlib.contextmanager
def compiling_for_one_core() -> Iterator[None]:
  """Has what is compiled inside use one core, however many there are.

  XLA's older runtime otherwise splits operations among as many threads as the
  compiling thread may use cores, whatever the flags say: those of all devices
  then wait for each other.
  """
  cores = os.sched_getaffinity(0)
  # Threads inherit their cores: those that will run must be there already.
  jax.local_devices()
  os.sched_setaffinity(0, {min(cores)})
  try:
    yield
  finally:
    os.sched_setaffinity(0, cores)
