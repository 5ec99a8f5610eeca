import os
import socket

from bmg.benchmarks.throughput import traffic


def test_counts_payload_in_both_directions():
  with socket.create_server(('localhost', 0)) as server:
    client = socket.create_connection(server.getsockname())
    peer, _ = server.accept()
    with client, peer:
      before = traffic.so_far()
      for _ in range(50):
        client.sendall(bytes(10_000))
        received = 0
        while received < 10_000:
          received += len(peer.recv(10_000))
      peer.sendall(b'well done')
      assert client.recv(100) == b'well done'
      # Both ends are of this process. The last bytes may not be acknowledged.
      counted = traffic.so_far().since(before)
      assert counted.received == 500_009
      assert 490_000 <= counted.sent <= 500_009


def test_leaves_other_files_and_the_connections_alone():
  left, right = socket.socketpair()
  with left, right:
    files = os.listdir('/proc/self/fd')
    before = traffic.so_far()
    left.sendall(b'not by TCP')
    assert traffic.so_far() == before
    assert right.recv(100) == b'not by TCP'
    assert os.listdir('/proc/self/fd') == files
