"""Where the servers of a run are on Kubernetes: worked out, never looked up.

JobSet gives each pod a name in the DNS that it keeps wherever it is started
again, `<jobset>-<group>-0-<index>.<jobset>`, and a pod has an address of its
own, so that ports can be fixed. Standard library only: supervisors import it.
"""

import hashlib
import os
import re

from bmg.launch.run import topology

# Below the range that Linux takes the ports of outgoing connections from.
_FIRST_PORT = 20_000
# Of a label of the DNS (RFC 1123).
_MAX_LABEL = 63
# The most that is appended to a run's name, for the name of a pod: the largest
# index that an Indexed Job may have, and five random letters.
_LONGEST_SUFFIX = f'-{max(topology.GROUPS, key=len)}-0-99999-abcde'
MAX_NAME = _MAX_LABEL - len(_LONGEST_SUFFIX)
_HASH_LENGTH = 8
# JobSet wants RFC 1035: a letter first.
_VALID_NAME = re.compile(r'[a-z]([-a-z0-9]*[a-z0-9])?')


def run_name(workdir: str) -> str:
  """Returns the name, on the cluster, of the run in `workdir`.

  It is the name of the folder, where that will do. Otherwise it is made to, and
  gets a hash, so that different folders still have different names.
  """
  given = os.path.basename(os.path.abspath(workdir))
  if is_valid_name(given):
    return given
  digest = hashlib.sha256(given.encode()).hexdigest()[:_HASH_LENGTH]
  words = re.sub(r'[^a-z0-9]+', '-', given.lower()).strip('-')
  if not words[:1].isalpha():
    words = f'run-{words}'
  words = words[: MAX_NAME - _HASH_LENGTH - 1].strip('-')
  return f'{words}-{digest}'


def is_valid_name(name: str) -> bool:
  """Whether a run may bear this name on the cluster."""
  return len(name) <= MAX_NAME and _VALID_NAME.fullmatch(name) is not None


def port(group: str, name: str = '') -> int:
  """Returns the port that the servers of `group` listen on.

  Each group has its own, so that all of them can be tried on one machine.

  Args:
    group: a key of `topology.GROUPS`.
    name: of the address; '' is that of the group.

  Raises:
    ValueError: its nodes serve nothing.
  """
  if topology.GROUPS[group].address is None:
    raise ValueError(f'nodes of the group {group!r} serve nothing')
  if name == topology.COORDINATOR:
    return _FIRST_PORT + len(topology.GROUPS)
  return _FIRST_PORT + list(topology.GROUPS).index(group)


def host(run_name: str, group: str, pod_index: int) -> str:
  """Returns the name in the DNS of one pod, as other pods of the run see it."""
  return f'{run_name}-{group}-0-{pod_index}.{run_name}'


def address(
  config: topology.Config, label: str, index: int, run_name: str, name: str = ''
) -> str:
  """Returns host:port of one server.

  Args:
    config: the run's configuration as saved in config.json.
    label: the group of the node, a key of `topology.GROUPS`.
    index: of the node in its group.
    run_name: of the run on the cluster, see `run_name`.
    name: of the address; '' is that of the group.

  Raises:
    ValueError: the group's nodes serve nothing, or there is no such node.
  """
  group_port = port(label, name)
  if not 0 <= index < topology.num_nodes(config, label):
    raise ValueError(f'there is no node {label}-{index}')
  if topology.GROUPS[label].joins:
    # It serves its own pod alone.
    return f'localhost:{group_port}'
  # Actors share pods, but they serve nothing.
  return f'{host(run_name, label, index)}:{group_port}'
