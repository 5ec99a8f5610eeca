import subprocess

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
