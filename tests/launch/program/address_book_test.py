import socket

import psutil
import pytest

from bmg.configs import schema
from bmg.launch.program import address_book
from bmg.launch.run import files
from tests.launch import processes


def test_local_servers_get_free_ports_of_their_own(tmp_path):
  config = schema.to_dict(processes.small_config(num_actors=2))
  address_book.publish_local(str(tmp_path), config)
  found = [
    address_book.look_up(str(tmp_path), key)
    for key in ('replay.0.reverb', 'learner.0.courier')
  ]
  assert all(address.startswith('localhost:') for address in found)
  ports = [int(address.rpartition(':')[2]) for address in found]
  assert len(set(ports)) == 2
  assert all(20_000 <= port < 30_000 for port in ports)
  assert len(list((tmp_path / 'state' / 'addresses').iterdir())) == 2


def test_a_port_in_use_is_not_picked(monkeypatch):
  with socket.socket() as server:
    # As gRPC does: another socket with this option could bind it, too.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(('', 0))
    server.listen()
    port = server.getsockname()[1]
    monkeypatch.setattr(address_book, '_PORTS', range(port, port + 1))
    with pytest.raises(OSError, match='no free port'):
      address_book.pick_port(set())
  assert address_book.pick_port(set()) == port
  with pytest.raises(OSError, match='no free port'):
    address_book.pick_port({port})


def test_what_an_earlier_launch_has_left_does_not_count(tmp_path):
  workdir = str(tmp_path)
  files.begin_launch(workdir)
  address_book.publish(workdir, 'key', 'here:1')
  assert address_book.look_up(workdir, 'key') == 'here:1'
  files.end_launch(workdir, files.WAITING)
  assert address_book.look_up(workdir, 'key') == 'here:1'
  files.begin_launch(workdir)
  assert address_book.look_up(workdir, 'key') is None


def test_host_of_a_slurm_node_whose_name_does_not_resolve(
  tmp_path, monkeypatch
):
  scontrol = tmp_path / 'scontrol'
  scontrol.write_text(
    '#!/bin/sh\necho "NodeName=$4 Arch=x86_64 NodeAddr=127.0.1.7 Port=1"\n'
  )
  scontrol.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
  monkeypatch.setenv('SLURMD_NODENAME', 'no-such-host.invalid')
  assert address_book.find_host('') == '127.0.1.7'
  monkeypatch.setenv('SLURMD_NODENAME', 'localhost')
  assert address_book.find_host('') == 'localhost'


def test_others_are_told_an_address_where_it_is_clear_which(monkeypatch):
  own = [
    address.address
    for addresses in psutil.net_if_addrs().values()
    for address in addresses
    if address.family == socket.AF_INET and address.address != '127.0.0.1'
  ]
  if not own:
    pytest.skip('this machine has no network')
  resolved = []
  monkeypatch.setattr(
    socket,
    'getaddrinfo',
    lambda *_, **__: [(0, 0, 0, '', (address, 0)) for address in resolved],
  )
  monkeypatch.setenv('SLURMD_NODENAME', 'node7')
  resolved[:] = own[:1]
  assert address_book.find_host('') == own[0]
  # Another name for the machine itself; somebody else's address; several.
  for resolved[:] in (['127.0.1.1'], ['203.0.113.77'], [own[0], '2001:db8::7']):
    assert address_book.find_host('') == 'node7'


def test_host_of_an_interface():
  assert address_book.find_host('lo') == '127.0.0.1'
  with pytest.raises(OSError, match=r'slurm\.interface=nope0'):
    address_book.find_host('nope0')
