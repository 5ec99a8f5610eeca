import json
import socket
import threading

import pytest

from launch import addresses, run_files
from tests.launch import processes


def test_the_local_book_has_free_ports_of_their_own(tmp_path):
  addresses.write_local_book(processes.small_config(), str(tmp_path))
  book = json.loads(run_files.addresses(str(tmp_path)).read_text())
  assert set(book) == {'replay.0.reverb', 'learner.0.courier'}
  ports = [int(address.rpartition(':')[2]) for address in book.values()]
  assert len(set(ports)) == 2
  assert all(20_000 <= port < 30_000 for port in ports)


def test_a_port_in_use_is_not_picked(monkeypatch):
  with socket.socket() as server:
    # As gRPC does: another socket with this option could bind it, too.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(('', 0))
    server.listen()
    port = server.getsockname()[1]
    monkeypatch.setattr(addresses, '_PORTS', range(port, port + 1))
    with pytest.raises(OSError, match='no free port'):
      addresses.pick_port(set())
  assert addresses.pick_port(set()) == port
  with pytest.raises(OSError, match='no free port'):
    addresses.pick_port({port})


def test_an_address_is_waited_for(tmp_path):
  path = tmp_path / 'addresses.json'
  address = addresses.BookedAddress(path, 'learner.0.courier')
  writer = threading.Timer(
    0.5, run_files.write_json, (path, {'learner.0.courier': 'there:1'})
  )
  writer.start()
  assert address.build() == 'there:1'
  writer.join()


def test_an_address_that_never_comes_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(addresses, '_LOOKUP_TIMEOUT_S', 0.1)
  address = addresses.BookedAddress(tmp_path / 'book.json', 'replay.0.reverb')
  with pytest.raises(TimeoutError, match=r'replay\.0\.reverb'):
    address.build()
