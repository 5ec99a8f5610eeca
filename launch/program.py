"""The graph of a run: who there is, and who talks to whom."""

import functools

import launchpad as lp

from configs import schema
from launch import nodes, plan


def make_program(config: schema.Config, workdir: str) -> lp.Program:
  """Builds the program of a run; starts, reads and writes nothing.

  Every process builds it again from the saved configuration and runs its own
  node of it, so equal arguments must give equal programs, and quickly. (What
  takes time is importing `lp.ReverbNode`, and with it TensorFlow. The launcher,
  for which that is too long, reads `launch.plan` instead.)

  Args:
    config: the run's configuration.
    workdir: the run's folder.

  Returns:
    A program with the groups of `plan.GROUPS`. Actors write unrolls to
    `replay`, the learner reads them there; actors and evaluator ask the learner
    for parameters.
  """
  program = lp.Program('bmg')
  with program.group(plan.REPLAY):
    replay_node = lp.ReverbNode(
      functools.partial(nodes.make_tables, config),
      functools.partial(nodes.make_checkpointer, config, workdir),
    )
    program.add_node(replay_node)
  replay_address = replay_node.reverb_address

  with program.group(plan.LEARNER):
    learner = program.add_node(
      lp.CourierNode(nodes.LearnerNode, config, workdir, replay_address)
    )
  # Without a deadline a call to a dead learner never returns.
  learner.set_client_kwargs(call_timeout=config.actors.parameter_timeout_s)

  # Nodes get `dereference` itself, not its result, to connect more than once.
  with program.group(plan.ACTOR):
    for index in range(config.actors.num_actors):
      program.add_node(
        lp.PyNode(
          nodes.run_actor,
          config,
          workdir,
          index,
          replay_address,
          learner.dereference,
        )
      )
  with program.group(plan.EVALUATOR):
    program.add_node(
      lp.PyNode(nodes.run_evaluator, config, workdir, learner.dereference)
    )
  return program
