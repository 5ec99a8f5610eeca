"""Settings for every test: quick compilation, one thread, CPU devices."""

import os

import pytest

# Tests compile much and compute little.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false',
)


# Before xdist, which reads the groups in this hook, too.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Tests of whole systems share runs with others of their file: one worker."""
  for item in items:
    if item.get_closest_marker('system'):
      item.add_marker(pytest.mark.xdist_group(item.path.stem))
