"""How many bytes this process has sent and received over TCP."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

# Where `struct tcp_info` of linux/tcp.h has tcpi_bytes_acked, and right behind
# it tcpi_bytes_received; both are uint64 and count payload alone.
_OFFSET = 120
_COUNTERS = struct.Struct('=QQ')


class Traffic(NamedTuple):
  """Bytes of payload, headers of TCP and IP not counted."""

  sent: int
  received: int

  def since(self, before: 'Traffic') -> 'Traffic':
    """What was added to `before`."""
    return Traffic(self.sent - before.sent, self.received - before.received)


def so_far() -> Traffic:
  """Sums over the TCP connections that this process has open at the moment.

  The kernel counts per connection: what was closed counts no more. What was
  sent counts once it is acknowledged.
  """
  counters = list(_counters())
  return Traffic(*(sum(column) for column in zip(*counters, strict=True)))


def _counters() -> Iterator[tuple[int, int]]:
  yield 0, 0
  for name in os.listdir('/proc/self/fd'):
    try:
      if not os.readlink(f'/proc/self/fd/{name}').startswith('socket:'):
        continue
      # A duplicate, so that closing ours leaves the connection alone.
      with socket.socket(fileno=os.dup(int(name))) as connection:
        if connection.type != socket.SOCK_STREAM:
          continue
        information = connection.getsockopt(
          socket.IPPROTO_TCP, socket.TCP_INFO, _OFFSET + _COUNTERS.size
        )
    except OSError:
      # Closed meanwhile, or not of TCP.
      continue
    sent, received = _COUNTERS.unpack_from(information, _OFFSET)
    yield sent, received
