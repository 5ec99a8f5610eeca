"""The address book of a run: where its servers are, in files that all can read.

A server keeps its address across restarts, so that its clients find it again.
Each entry bears the number of the launch that it belongs to: after a requeue
the servers may be on other machines, and what the last launch has left must not
be taken for theirs. Standard library only: supervisors import it.
"""

import fcntl
import os
import random
import re
import socket
import struct
from collections.abc import Iterable

from bmg.launch.run import files, subprocesses, topology

LOCAL_HOST = 'localhost'
# How nodes know where servers are, says the environment variable BMG_ADDRESSES:
# by this book, or by names that `launch.kubernetes.dns` works out.
BOOK = 'book'
DNS = 'dns'
# Has a supervisor find out under which name or address others reach it.
AUTO_HOST = 'auto'
# Below the range that Linux takes the ports of outgoing connections from.
_PORTS = range(20_000, 30_000)
_SIOCGIFADDR = 0x8915
_COMMAND_TIMEOUT_S = 20.0


def key(label: str, index: int, name: str) -> str:
  """The key of address `name` of one node of group `label`."""
  return f'{label}.{index}.{name}'


def node_keys(
  config: topology.Config, node: topology.NodeId
) -> tuple[str, ...]:
  """The keys of the addresses that `node` serves."""
  return tuple(
    key(node.group, node.index, name)
    for name in topology.addresses(config, node)
  )


def publish(workdir: str, address_key: str, address: str) -> None:
  """Enters `address`, as host:port, for the launch that is going on."""
  files.write_json(
    files.address(workdir, address_key),
    {'launch': files.launch_number(workdir), 'address': address},
  )


def look_up(workdir: str, address_key: str) -> str | None:
  """Returns host:port, or None if this launch has not entered it yet."""
  entry = files.read_json(files.address(workdir, address_key))
  if entry is None or entry['launch'] != files.launch_number(workdir):
    return None
  return entry['address']


def publish_local(workdir: str, config: topology.Config) -> None:
  """Gives each server of the program a free port of this machine.

  Raises:
    OSError: there is none.
  """
  addresses = pick_addresses(config, topology.nodes(config), LOCAL_HOST)
  for address_key, address in addresses.items():
    publish(workdir, address_key, address)


def pick_addresses(
  config: topology.Config, nodes: Iterable[topology.NodeId], host: str
) -> dict[str, str]:
  """Returns an address, host:port, for each key that some nodes serve.

  Args:
    config: the run's configuration as saved in config.json.
    nodes: on this machine.
    host: what others reach this machine by.

  Raises:
    OSError: there are too few free ports.
  """
  ports: dict[str, int] = {}
  for node in nodes:
    for address_key in node_keys(config, node):
      ports[address_key] = pick_port(set(ports.values()))
  return {address_key: f'{host}:{port}' for address_key, port in ports.items()}


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


def find_host(interface: str) -> str:
  """Returns what other machines of the cluster reach this one by.

  Args:
    interface: of the network to use, such as 'ib0'; '' takes the name of this
      node, which Slurm knows better than the machine itself does: several nodes
      may share a machine.

  Returns:
    An IPv4 address, so that all agree on it, where this machine has exactly one
    by that name that is not only its own; else the name.

  Raises:
    OSError: there is no such interface, or it has no IPv4 address.
  """
  if interface:
    return _interface_address(interface)
  node = os.environ.get('SLURMD_NODENAME')
  for name in (node, node and _slurm_address(node), socket.gethostname()):
    if name and (found := _resolve(name)):
      return found[0] if len(found) == 1 and _is_ours(found[0]) else name
  return LOCAL_HOST


def _interface_address(interface: str) -> str:
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    request = struct.pack('256s', interface.encode()[:15])
    try:
      answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
    except OSError as error:
      raise OSError(
        error.errno, f'slurm.interface={interface}: {error.strerror}'
      ) from error
  return socket.inet_ntoa(answer[20:24])


def _slurm_address(node: str) -> str | None:
  """Asks Slurm for the address of a node whose name does not resolve."""
  try:
    answer = subprocesses.call(
      ['scontrol', '-o', 'show', 'node', node], _COMMAND_TIMEOUT_S
    )
  except subprocesses.CommandError:
    return None
  found = re.search(r'\bNodeAddr=(\S+)', answer)
  return found and found.group(1)


def _resolve(name: str) -> list[str]:
  """The IP addresses of `name`, none where it has none."""
  try:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
  except OSError:
    return []
  return [str(address[0]) for *_, address in found]


def _is_ours(address: str) -> bool:
  """Whether this machine has this IPv4 address for others to reach it by."""
  if address.startswith('127.'):
    return False
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      probe.bind((address, 0))
    except OSError:
      return False
  return True
