import pytest

from tests.launch import processes


@pytest.fixture
def supervise(tmp_path):
  """Starts supervisors of fake nodes; cleans up after them."""
  workdir = tmp_path / 'run'
  workdir.mkdir()
  supervised = []

  def start(group, script, **launch):
    supervised.append(
      processes.Supervised(workdir, tmp_path, group, script, **launch)
    )
    return supervised[-1]

  yield start
  for each in supervised:
    # The nodes die with their supervisors.
    each.process.kill()
    each.process.wait()
