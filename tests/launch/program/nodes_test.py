import functools

import courier
import pytest

from bmg.launch.program import address_book, nodes
from bmg.launch.run import files


class _Source:
  def get_parameters(self, unless_version):
    return None if unless_version == 5 else (5, 500, 'parameters')


@pytest.fixture
def serve(tmp_path):
  """Serves parameters of the run in `tmp_path / 'ours'`."""
  files.begin_launch(str(tmp_path / 'ours'))
  port = address_book.pick_port(set())
  server = courier.Server(port=port)
  served = nodes.ParameterServer(str(tmp_path / 'ours'), _Source())
  server.Bind('get_parameters', served.get_parameters)
  server.Start()
  yield functools.partial(
    courier.Client, f'localhost:{port}', call_timeout=10.0
  )
  server.Stop()


def test_processes_of_the_run_get_its_parameters(serve, tmp_path):
  client = nodes.LearnerClient(serve, str(tmp_path / 'ours'))
  assert client.get_parameters(-1) == (5, 500, 'parameters')
  assert client.get_parameters(5) is None


def test_a_process_of_another_run_is_turned_away(serve, tmp_path):
  files.begin_launch(str(tmp_path / 'theirs'))
  client = nodes.LearnerClient(serve, str(tmp_path / 'theirs'))
  with pytest.raises(RuntimeError, match='belongs to another run'):
    client.get_parameters(-1)


def test_a_run_keeps_its_token(tmp_path, monkeypatch):
  assert files.token(str(tmp_path)) == ''
  files.begin_launch(str(tmp_path))
  token = files.token(str(tmp_path))
  assert len(token) == 64
  assert (tmp_path / 'state/token.json').stat().st_mode & 0o077 == 0
  files.begin_launch(str(tmp_path))
  assert files.token(str(tmp_path)) == token
  monkeypatch.setenv('BMG_RUN_TOKEN', 'of the pod')
  assert files.token(str(tmp_path)) == 'of the pod'
