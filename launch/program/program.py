"""The graph of a run: who there is, and who talks to whom."""

from collections.abc import Sequence
from typing import Any

import launchpad as lp

from bmg.configs import schema
from bmg.launch.program import nodes
from bmg.launch.run import topology

# Courier's own default.
_NUM_SERVER_THREADS = 16


def make_program(config: schema.Config, workdir: str) -> lp.Program:
  """Builds the program of a run; starts, reads and writes nothing.

  Every process builds it again from the saved configuration and runs its own
  node of it, so equal arguments must give equal programs, and quickly. (That is
  why there is no `lp.ReverbNode` in it: it would have all processes import
  TensorFlow, the evaluator, too, which does not need it.)

  Args:
    config: the run's configuration.
    workdir: the run's folder.

  Returns:
    A program with the groups of `topology.GROUPS`. Actors write unrolls to
    `replay`, the learner reads them there; actors and evaluator ask the learner
    for parameters, actors through their `relay` where there is one.
  """
  values = schema.to_dict(config)
  program = lp.Program('bmg')
  replay_addresses = []
  with program.group(topology.REPLAY):
    for index in range(config.replay.num_servers):
      address = lp.Address(topology.REVERB)
      replay = lp.PyNode(nodes.run_replay, config, workdir, index, address)
      replay.allocate_address(address)
      program.add_node(replay)
      replay_addresses.append(address)

  # Each actor whose action is being chosen holds one.
  num_threads = _NUM_SERVER_THREADS
  if config.actors.inference == 'learner':
    num_threads += config.actors.num_actors

  def add_server(
    *node: Any, addresses: Sequence[lp.Address] = ()
  ) -> lp.CourierHandle:
    server = lp.CourierNode(
      *node, courier_kwargs={'thread_pool_size': num_threads}
    )
    for address in addresses:
      server.allocate_address(address)
    handle = program.add_node(server)
    # Without a deadline a call to a dead server never returns.
    handle.set_client_kwargs(call_timeout=config.actors.parameter_timeout_s)
    return handle

  # Where learner hosts meet, if there are several: at the first one, which also
  # has the parameters that are asked for.
  num_hosts = config.learner.num_hosts
  coordinator = lp.Address(topology.COORDINATOR) if num_hosts > 1 else None
  with program.group(topology.LEARNER):
    learner, *_ = [
      add_server(
        *(nodes.LearnerNode, config, workdir, index),
        *(replay_addresses, coordinator),
        addresses=[coordinator] if coordinator and index == 0 else [],
      )
      for index in range(num_hosts)
    ]
  # Nodes get `dereference` itself, not its result, to connect more than once.
  with program.group(topology.RELAY):
    relays = [
      add_server(nodes.RelayNode, config, workdir, index, learner.dereference)
      for index in range(topology.num_nodes(values, topology.RELAY))
    ]
  with program.group(topology.ACTOR):
    for index in range(config.actors.num_actors):
      source = relays[topology.relay_of(values, index)] if relays else learner
      program.add_node(
        lp.PyNode(
          nodes.run_actor,
          config,
          workdir,
          index,
          replay_addresses[index % len(replay_addresses)],
          source.dereference,
        )
      )
  with program.group(topology.EVALUATOR):
    program.add_node(
      lp.PyNode(nodes.run_evaluator, config, workdir, learner.dereference)
    )
  return program
