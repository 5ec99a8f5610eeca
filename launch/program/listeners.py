"""Keeps servers to the addresses that they are meant for.

Courier and Reverb listen on all interfaces of their machine, and can do nothing
else. A filter in the kernel drops what comes for other addresses, as if the
sockets were bound (socket(7), SO_ATTACH_FILTER; it takes no privilege). Linux
only, like the rest.
"""

import ctypes
import ipaddress
import os
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterable

import psutil
from absl import logging

from bmg.launch.program import address_book

_LOOPBACK = ('127.0.0.1', '::1')
# Until servers listen, their process is looked at so often; and, as gRPC may
# open more sockets while it starts, again after that.
_POLL_S = 0.1
_AGAIN_S = (0.1, 1.0, 10.0)
# linux/filter.h, asm-generic/socket.h.
_SO_ATTACH_FILTER = 26
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_PROTOCOL, _NETWORK_HEADER = 0xFFFFF000, 0xFFF00000
_ETH_P = {4: 0x0800, 6: 0x86DD}
# Where a packet's header has the address that it is for.
_DESTINATION = {4: 16, 6: 24}
_WHOLE_PACKET = 0xFFFFFFFF

# code, offsets to jump where it is true and false, operand.
_Instruction = tuple[int, int, int, int]


def allowed_addresses(host: str) -> tuple[str, ...]:
  """Returns what a server may be reached by whose address has this host.

  Args:
    host: of the server's entry in the address book.

  Returns:
    IP addresses, or () where `host` is a name, which other machines may take
    for other addresses than this one does: then all are allowed.
  """
  if host == address_book.LOCAL_HOST:
    return _LOOPBACK
  try:
    return (*_LOOPBACK, str(ipaddress.ip_address(host)))
  except ValueError:
    return ()


def keep(addresses: Iterable[str]) -> None:
  """Has this process keep the servers that it will start to their addresses.

  Returns at once; a thread of its own waits for them.

  Args:
    addresses: of the servers, host:port.
  """
  for address in addresses:
    host, _, port = address.rpartition(':')
    if allowed := allowed_addresses(host):
      threading.Thread(
        target=_keep, args=(int(port), allowed), daemon=True
      ).start()


def _keep(port: int, allowed: Collection[str]) -> None:
  try:
    while not restrict(port, allowed):
      time.sleep(_POLL_S)
    for seconds in _AGAIN_S:
      time.sleep(seconds)
      restrict(port, allowed)
  except OSError as error:
    # As in a sandbox without such filters. The run is no worse off than before.
    logging.warning(
      'The server on port %d may be reached by any address: %s', port, error
    )


def restrict(port: int, allowed: Collection[str]) -> int:
  """Has this process's sockets that listen on `port` drop other packets.

  Args:
    port: TCP.
    allowed: IP addresses that packets may be for.

  Returns:
    How many such sockets there are.

  Raises:
    OSError: the kernel has no such filters.
  """
  fds = [
    connection.fd
    for connection in psutil.Process().net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
  ]
  program = b''.join(
    struct.pack('HBBI', *instruction) for instruction in make_filter(allowed)
  )
  buffer = ctypes.create_string_buffer(program)
  # struct sock_fprog, whose pointer is aligned.
  request = struct.pack('HP', len(program) // 8, ctypes.addressof(buffer))
  for fd in fds:
    with socket.socket(fileno=os.dup(fd)) as listener:
      listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, request)
  return len(fds)


def make_filter(allowed: Collection[str]) -> list[_Instruction]:
  """Returns a program of classic BPF, for a socket of IPv4, IPv6 or both."""
  parsed = [ipaddress.ip_address(address) for address in allowed]
  program: list[_Instruction] = []
  for version in (4, 6):
    block: list[_Instruction] = []
    for address in parsed:
      if address.version == version:
        block += _accept(address)
    block.append((_RETURN, 0, 0, 0))
    program += [
      (_LOAD, 0, 0, _PROTOCOL),
      (_JUMP_IF_EQUAL, 0, len(block), _ETH_P[version]),
      *block,
    ]
  return [*program, (_RETURN, 0, 0, 0)]


def _accept(
  address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[_Instruction]:
  """Accepts a packet for `address`, or goes on after these instructions."""
  words = struct.unpack(f'!{len(address.packed) // 4}I', address.packed)
  program: list[_Instruction] = []
  for index, word in enumerate(words):
    # Two for each word that is still to be looked at, and the return.
    rest = 2 * (len(words) - index - 1) + 1
    offset = _NETWORK_HEADER + _DESTINATION[address.version] + 4 * index
    program += [(_LOAD, 0, 0, offset), (_JUMP_IF_EQUAL, 0, rest, word)]
  return [*program, (_RETURN, 0, 0, _WHOLE_PACKET)]
