import os
import socket
import threading

import pytest
import reverb

from bmg.replay import server, tables
from tests.replay.conftest import NUM_ACTIONS


def test_checkpoints_are_looked_for_only_when_asked_for(make_config, tmp_path):
  checkpointer = server.make_checkpointer(make_config(), str(tmp_path), 0)
  assert checkpointer.path == str(tmp_path / 'state' / 'unused_replay' / '0')
  checkpointer = server.make_checkpointer(
    make_config(checkpoint=True), str(tmp_path), 1
  )
  assert checkpointer.path == str(tmp_path / 'replay' / '1')
  assert os.path.isdir(checkpointer.path)


def test_a_port_that_is_taken_is_reported(make_config):
  # Reverb itself would share the port without a word.
  taken = reverb.Server(tables.make_tables(make_config(), 3), port=None)
  with pytest.raises(OSError, match=f'port {taken.port} .* is taken'):
    server.check_port_free(taken.port)
  taken.stop()


@pytest.mark.parametrize('host', ['127.0.0.1', '0.0.0.0'])
def test_a_port_taken_on_ipv4_alone_is_reported(host):
  with socket.create_server((host, 0)) as listener:
    port = listener.getsockname()[1]
    with pytest.raises(OSError, match='is taken'):
      server.check_port_free(port)
  server.check_port_free(port)


def test_serves_and_shows_that_it_answers_until_it_is_stopped(
  make_config, tmp_path
):
  with socket.create_server(('localhost', 0)) as probe:
    port = probe.getsockname()[1]
  stop, alive = threading.Event(), threading.Event()
  thread = threading.Thread(
    target=server.run_server,
    args=(make_config(), NUM_ACTIONS, str(tmp_path), 0, port, 'tok', stop),
    kwargs={'heartbeat': alive.set},
  )
  thread.start()
  try:
    assert alive.wait(30)
    info = reverb.Client(f'localhost:{port}').server_info(timeout=10)
    assert set(info) == {'online-tok', 'replay-tok'}
  finally:
    stop.set()
    thread.join(10)
  assert not thread.is_alive()
