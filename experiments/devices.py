"""Has JAX use a CPU for many small computations side by side."""

import os

import jax


def one_per_core() -> None:
  """Makes a device of every core; to be called before JAX computes anything.

  Seeds are then spread over cores as they are over accelerators. Operations
  this small only lose by being split among threads.
  """
  jax.config.update('jax_num_cpu_devices', os.cpu_count() or 1)
  # The last of several equal flags counts: the user's own.
  flags = (
    f'--xla_cpu_multi_thread_eigen=false {os.environ.get("XLA_FLAGS", "")}'
  )
  os.environ['XLA_FLAGS'] = flags.strip()
