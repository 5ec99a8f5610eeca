"""The groups of a program: how many nodes, how they are treated.

The launcher and the supervisors need no more than this of a program, so it is
kept apart from `launch.program`: standard library only, and quick to import.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

REPLAY = 'replay'
LEARNER = 'learner'
RELAY = 'relay'
ACTOR = 'actor'
EVALUATOR = 'evaluator'
# The address of a Reverb server.
REVERB = 'reverb'
# The address where several learner hosts meet, of the first one.
COORDINATOR = 'coordinator'

# A node ends with this status when restarting it cannot help.
FATAL_STATUS = 3

# The run's configuration as saved in config.json.
Config = Mapping[str, Any]


class Group(NamedTuple):
  """What the launcher has to know about one group of equal nodes."""

  # The name of the Launchpad address that its nodes serve, if they serve one.
  address: str | None
  # Restarted for as long as it starts at all; others a limited number of times.
  restart_always: bool
  # Groups that must have stopped before this one is asked to.
  stops_after: tuple[str, ...] = ()
  # On a cluster, node i is part of task i of this group instead of its own.
  joins: str | None = None


# In the order of starting: those that serve before those that ask.
GROUPS = {
  REPLAY: Group(REVERB, restart_always=False, stops_after=(LEARNER,)),
  LEARNER: Group('courier', restart_always=False),
  RELAY: Group('courier', restart_always=True, joins=ACTOR),
  ACTOR: Group(None, restart_always=True),
  EVALUATOR: Group(None, restart_always=True),
}
# Those that a cluster schedules by themselves.
TASK_GROUPS = tuple(name for name, group in GROUPS.items() if not group.joins)


@dataclasses.dataclass(frozen=True)
class NodeId:
  """One node of the program."""

  group: str
  index: int

  def __str__(self) -> str:
    return f'{self.group}-{self.index}'


def num_nodes(config: Config, group: str) -> int:
  """Returns how many nodes `group` has."""
  if group == REPLAY:
    return config['replay']['num_servers']
  if group == LEARNER:
    return config['learner']['num_hosts']
  if group == ACTOR:
    return config['actors']['num_actors']
  if group == RELAY:
    return num_tasks(config, ACTOR) if config['cluster']['relays'] else 0
  return 1


def addresses(config: Config, node: NodeId) -> tuple[str, ...]:
  """Returns the names of the Launchpad addresses that `node` serves."""
  name = GROUPS[node.group].address
  names: tuple[str, ...] = () if name is None else (name,)
  if node == NodeId(LEARNER, 0) and num_nodes(config, LEARNER) > 1:
    names += (COORDINATOR,)
  return names


def nodes(config: Config) -> tuple[NodeId, ...]:
  """Returns every node of the program, in the order of starting."""
  return tuple(
    NodeId(group, index)
    for group in GROUPS
    for index in range(num_nodes(config, group))
  )


def num_tasks(config: Config, group: str) -> int:
  """Returns how many tasks a cluster divides `group` into."""
  # The last one may have fewer nodes than the others.
  return -(-num_nodes(config, group) // _nodes_per_task(config, group))


def task_nodes(config: Config, group: str, index: int) -> list[NodeId]:
  """Returns the nodes of one task; none if there is no such task."""
  per_task = _nodes_per_task(config, group)
  indices = range(num_nodes(config, group))
  members = [
    NodeId(group, each)
    for each in indices[index * per_task : (index + 1) * per_task]
  ]
  guests = [
    NodeId(name, index)
    for name, each in GROUPS.items()
    if each.joins == group and index < num_nodes(config, name)
  ]
  return guests + members


def relay_of(config: Config, actor_index: int) -> int:
  """Returns the relay that an actor asks for parameters, if there are any."""
  return actor_index // _nodes_per_task(config, ACTOR)


def _nodes_per_task(config: Config, group: str) -> int:
  return config['cluster']['actors_per_task'] if group == ACTOR else 1
