"""Settings for every test: quick compilation, one thread, CPU devices."""

import gc
import os
import tempfile

# Begun first, or one worker would be left with them at the end.
_LONG_FILES = ('slurm_test.py', 'meta_gradient_test.py', 'system_test.py')

# Tracing leaves many objects, and hardly a cycle among them.
gc.set_threshold(100_000, 50, 50)
# Tests compile much and compute little.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false '
  '--xla_cpu_parallel_codegen_split_count=1',
)
# The same program is compiled once, for all processes. Those of pytest-xdist
# inherit the name.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _CACHE = tempfile.TemporaryDirectory(prefix='bmg-tests-')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _CACHE.name
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')


def pytest_collection_modifyitems(items):
  """Puts the longest files first; the order is otherwise kept."""
  items.sort(key=lambda item: item.path.name not in _LONG_FILES)
