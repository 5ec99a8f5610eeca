"""Has JAX use a CPU for many small computations side by side."""

import os

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
    # It splits operations among the threads of all devices, which then wait for
    # each other.
    '--xla_disable_hlo_passes=cpu-parallel-task-assigner',
    # Divisions by the same number become products with its reciprocal;
    # functions, infinities and NaN stay what they are.
    '--xla_cpu_enable_fast_math=true',
    '--xla_cpu_fast_math_honor_division=false',
    '--xla_cpu_fast_math_honor_functions=true',
    '--xla_cpu_fast_math_honor_infs=true',
    '--xla_cpu_fast_math_honor_nans=true',
    os.environ.get('XLA_FLAGS', ''),
  )
  os.environ['XLA_FLAGS'] = ' '.join(flags).strip()
