"""How the nodes of a Launchpad program read the address book of their run.

They look an address up as late as they use it: on a cluster, a server may not
even have been scheduled when its clients start.
"""

import os
import time

import launchpad as lp

from bmg.configs import schema
from bmg.launch.kubernetes import dns
from bmg.launch.program import address_book

_POLL_S = 0.2
_LOOKUP_TIMEOUT_S = 60.0


class BookedAddress(lp.AbstractAddressBuilder):
  """An address that is looked up in the book when it is first needed."""

  def __init__(self, workdir: str, address_key: str) -> None:
    self._workdir = workdir
    self._key = address_key

  def build(self) -> str:
    """Returns host:port.

    Raises:
      TimeoutError: the book does not hold the address, nor got it in time.
    """
    until = time.monotonic() + _LOOKUP_TIMEOUT_S
    while True:
      address = address_book.look_up(self._workdir, self._key)
      if address is not None:
        return address
      if time.monotonic() > until:
        raise TimeoutError(
          f'{self._workdir} holds no address of {self._key} after '
          f'{_LOOKUP_TIMEOUT_S:g} s'
        )
      time.sleep(_POLL_S)


class KnownAddress(lp.AbstractAddressBuilder):
  """An address that is known beforehand."""

  def __init__(self, address: str) -> None:
    self._address = address

  def build(self) -> str:
    """Returns host:port."""
    return self._address


def bind(program: lp.Program, config: schema.Config, workdir: str) -> None:
  """Makes the nodes of `program` ready to run: contexts, handles, addresses.

  Launchpad's own launchers do this for the launch types that they know. The
  steps are the same for threads, processes and machines, so one of its types
  is borrowed for all.
  """
  for node in program.get_all_nodes():
    node.launch_context.initialize(lp.LaunchType.LOCAL_MULTI_PROCESSING, None)
  for label, nodes in program.groups.items():
    for index, node in enumerate(nodes):
      for handle in node.input_handles:
        handle.connect(node, label)
      for address in node.addresses:
        address.bind(_make_builder(config, workdir, label, index, address.name))


def _make_builder(
  config: schema.Config, workdir: str, label: str, index: int, name: str
) -> lp.AbstractAddressBuilder:
  if os.environ.get('BMG_ADDRESSES') == address_book.DNS:
    run_name = os.environ.get('BMG_RUN_NAME') or dns.run_name(workdir)
    return KnownAddress(
      dns.address(schema.to_dict(config), label, index, run_name, name)
    )
  return BookedAddress(workdir, address_book.key(label, index, name))
