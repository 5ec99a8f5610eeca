import subprocess

import jax
import pytest


@pytest.fixture
def small_disk(tmp_path):
  """A file system of eight megabytes."""
  directory = tmp_path / 'disk'
  directory.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(directory)]
  try:
    mounted = subprocess.run(mount, capture_output=True, timeout=10)
  except FileNotFoundError:
    pytest.skip('there is no mount command')
  if mounted.returncode != 0:
    pytest.skip('mounting a tmpfs is not permitted here')
  yield directory
  subprocess.run(['umount', '--lazy', str(directory)], check=True, timeout=10)


@pytest.fixture
def compilation_cache(tmp_path_factory):
  """Lets learners of one configuration share a compiled step."""
  path = tmp_path_factory.getbasetemp() / 'compilation_cache'
  settings = {
    'jax_compilation_cache_dir': str(path),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
  }
  before = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)
