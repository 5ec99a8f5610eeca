import os
import socket

import pytest
import reverb

from replay import server, tables


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
