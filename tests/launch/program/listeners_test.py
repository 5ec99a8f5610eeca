import socket
import time

import courier
import pytest
import reverb

from bmg.launch.program import address_book, listeners
from tests.launch.processes import is_reached


@pytest.fixture
def listener():
  """A socket of IPv4 and IPv6, on all addresses of this machine."""
  with socket.create_server(
    ('', 0), family=socket.AF_INET6, dualstack_ipv6=True
  ) as server:
    yield server


@pytest.mark.parametrize(
  'allowed',
  [
    ('127.0.0.1', '::1'),
    ('127.0.0.1', '127.0.0.3'),
    # Differs from ::1 in its first and in its last 32 bits.
    ('2001:db8::1', '127.0.0.2'),
    ('::2', '127.0.0.2'),
    ('::1',),
    (),
  ],
)
def test_is_reached_by_what_is_allowed_and_nothing_else(listener, allowed):
  port = listener.getsockname()[1]
  hosts = ('127.0.0.1', '127.0.0.2', '127.0.0.3', '::1')
  assert all(is_reached(host, port) for host in hosts)
  assert listeners.restrict(port, allowed) == 1
  assert [is_reached(host, port) for host in hosts] == [
    host in allowed for host in hosts
  ]


def test_other_ports_are_left_alone(listener):
  port = listener.getsockname()[1]
  with socket.create_server(('127.0.0.1', 0)) as other:
    assert listeners.restrict(other.getsockname()[1], ()) == 1
    assert is_reached('127.0.0.1', port)


@pytest.mark.parametrize(
  ('host', 'expected'),
  [
    ('localhost', ('127.0.0.1', '::1')),
    ('192.0.2.7', ('127.0.0.1', '::1', '192.0.2.7')),
    ('2001:db8::7', ('127.0.0.1', '::1', '2001:db8::7')),
    # Others may know it by another address than this machine.
    ('node7', ()),
  ],
)
def test_allowed_addresses(host, expected):
  assert listeners.allowed_addresses(host) == expected


def start_courier(port):
  server = courier.Server('test', port)
  server.Bind('answer', lambda: 42)
  server.Start()
  return server.Stop


def start_reverb(port):
  return reverb.Server([reverb.Table.queue('queue', 1)], port).stop


@pytest.mark.parametrize('start', [start_courier, start_reverb])
def test_servers_are_kept_to_the_loopback_interface(start):
  port = address_book.pick_port(set())
  # Before they are there, as in a run.
  listeners.keep([f'localhost:{port}'])
  time.sleep(0.1)
  stop = start(port)
  try:
    deadline = time.monotonic() + 10
    while is_reached('127.0.0.2', port):
      assert time.monotonic() < deadline
    assert is_reached('127.0.0.1', port)
    if start is start_courier:
      client = courier.Client(f'localhost:{port}')
      assert client.answer() == 42
    else:
      client = reverb.Client(f'localhost:{port}')
      assert 'queue' in client.server_info(timeout=10)
  finally:
    stop()


def test_a_kernel_that_cannot_filter_is_reported(listener, monkeypatch, caplog):
  port = listener.getsockname()[1]
  # No option that any kernel has.
  monkeypatch.setattr(listeners, '_SO_ATTACH_FILTER', 9999)
  listeners.keep([f'localhost:{port}'])
  deadline = time.monotonic() + 10
  while not caplog.messages:
    assert time.monotonic() < deadline
    time.sleep(0.01)
  assert f'port {port} may be reached by any address' in caplog.text


def test_servers_whose_address_is_a_name_are_left_alone(listener):
  port = listener.getsockname()[1]
  listeners.keep([f'node7:{port}'])
  time.sleep(0.1)
  assert is_reached('127.0.0.2', port)
