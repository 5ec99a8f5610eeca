"""Where the servers of a program are: an address book, and how nodes read it.

A server keeps its address across restarts, so that its clients find it again.
Nodes look an address up as late as they use it: `BookedAddress` works for any
maker of books that writes `host:port` under the same keys. `write_local_book`
is the maker for one machine.
"""

import pathlib
import random
import socket
import time

import launchpad as lp

from configs import schema
from launch import plan, run_files

# Below the range that Linux takes the ports of outgoing connections from.
_PORTS = range(20_000, 30_000)
_LOCAL_HOST = 'localhost'
_POLL_S = 0.2
_LOOKUP_TIMEOUT_S = 60.0


def key(label: str, index: int, name: str) -> str:
  """The key in the book of address `name` of one node of group `label`."""
  return f'{label}.{index}.{name}'


class BookedAddress(lp.AbstractAddressBuilder):
  """An address that is looked up in the book when it is first needed."""

  def __init__(self, path: pathlib.Path, address_key: str) -> None:
    self._path = path
    self._key = address_key

  def build(self) -> str:
    """Returns host:port.

    Raises:
      TimeoutError: the book does not hold the address, nor got it in time.
    """
    until = time.monotonic() + _LOOKUP_TIMEOUT_S
    while True:
      book = run_files.read_json(self._path, {})
      if self._key in book:
        return book[self._key]
      if time.monotonic() > until:
        raise TimeoutError(
          f'{self._path} holds no address of {self._key} after '
          f'{_LOOKUP_TIMEOUT_S:g} s'
        )
      time.sleep(_POLL_S)


def write_local_book(config: schema.Config, workdir: str) -> None:
  """Gives each server of the program a free port of this machine."""
  book = {}
  taken: set[int] = set()
  for node in plan.nodes(config):
    name = plan.GROUPS[node.group].address
    if name is not None:
      port = pick_port(taken)
      taken.add(port)
      book[key(node.group, node.index, name)] = f'{_LOCAL_HOST}:{port}'
  run_files.write_json(run_files.addresses(workdir), book)


def pick_port(taken: set[int]) -> int:
  """Returns a port that nobody listens on.

  A plain bind tells, one with SO_REUSEPORT (as gRPC's own) would not: two
  Reverb servers on one port start without an error and share their clients.

  Raises:
    OSError: every port of the range is in use.
  """
  for port in random.sample(_PORTS, len(_PORTS)):
    if port not in taken and _is_free(port):
      return port
  raise OSError(f'no free port in {_PORTS.start}-{_PORTS.stop - 1}')


def _is_free(port: int) -> bool:
  with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
    try:
      probe.bind(('', port))
    except OSError:
      return False
  return True


def bind(program: lp.Program, workdir: str) -> None:
  """Makes the nodes of `program` ready to run: contexts, handles, addresses.

  Launchpad's own launchers do this for the launch types that they know. The
  steps are the same for threads, processes and machines, so one of its types
  is borrowed for all.
  """
  path = run_files.addresses(workdir)
  for node in program.get_all_nodes():
    node.launch_context.initialize(lp.LaunchType.LOCAL_MULTI_PROCESSING, None)
  for label, nodes in program.groups.items():
    for index, node in enumerate(nodes):
      for handle in node.input_handles:
        handle.connect(node, label)
      for address in node.addresses:
        address.bind(BookedAddress(path, key(label, index, address.name)))
