"""The groups of a program: how many nodes, how they are treated.

The launcher and the supervisors need no more than this of a program, so it is
kept apart from `launch.program`: standard library only, and quick to import.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

REPLAY = 'replay'
LEARNER = 'learner'
ACTOR = 'actor'
EVALUATOR = 'evaluator'

# A node ends with this status when restarting it cannot help.
FATAL_STATUS = 3


class Group(NamedTuple):
  """What the launcher has to know about one group of equal nodes."""

  # The name of the Launchpad address that its nodes serve, if they serve one.
  address: str | None
  # Restarted for as long as it starts at all; others a limited number of times.
  restart_always: bool
  # Groups that must have stopped before this one is asked to.
  stops_after: tuple[str, ...] = ()


# In the order of starting: those that serve before those that ask.
GROUPS = {
  REPLAY: Group('reverb', restart_always=False, stops_after=(LEARNER,)),
  LEARNER: Group('courier', restart_always=False),
  ACTOR: Group(None, restart_always=True),
  EVALUATOR: Group(None, restart_always=True),
}


@dataclasses.dataclass(frozen=True)
class NodeId:
  """One node of the program."""

  group: str
  index: int

  def __str__(self) -> str:
    return f'{self.group}-{self.index}'


def nodes(config: Any) -> tuple[NodeId, ...]:
  """Returns every node of the program of `config`, in the order of starting.

  Args:
    config: a `schema.Config`; only `actors.num_actors` is looked at.
  """
  counts = dict.fromkeys(GROUPS, 1)
  counts[ACTOR] = config.actors.num_actors
  return tuple(
    NodeId(group, index)
    for group, count in counts.items()
    for index in range(count)
  )


def num_tasks(config: Mapping[str, Any], group: str) -> int:
  """Returns how many tasks a cluster divides `group` into.

  Args:
    config: the run's configuration as saved in config.json.
    group: a key of `GROUPS`.
  """
  if group != ACTOR:
    return 1
  # The last one may have fewer actors than the others.
  return -(
    -config['actors']['num_actors'] // config['cluster']['actors_per_task']
  )
