"""Settings for every test: quick compilation, one thread, CPU devices."""

import os

# Tests compile much and compute little.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false',
)
