"""Counts the hidden units of Q(lambda) that have died.

Usage: python -m bmg.experiments.two_colors.units [--workdir=runs/two_colors]

A ReLU unit that is zero in every state of the world has no gradient: no update
brings it back.
"""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from bmg.experiments import devices
from bmg.experiments.two_colors import environment, run, study_folder
from bmg.launch import cli

PyTree = Any


def all_observations() -> jax.Array:
  """Returns what the agent sees in each of the 13,800 states, [states, 30]."""
  cells = jnp.asarray(
    list(itertools.permutations(range(environment.NUM_CELLS), 3)), jnp.int32
  )
  states = environment.State(cells[:, 0], cells[:, 1:], jnp.zeros(len(cells)))
  return jax.vmap(environment.observe)(states)


def dead_shares(params: PyTree, observations: jax.Array) -> list[float]:
  """Returns the share of each hidden layer's units that are always zero.

  Args:
    params: of one seed's Q, from `q_lambda.make_network`.
    observations: of all states, [states, 30].
  """
  # They are named in their order; the last one gives the values.
  *hidden, _ = (params[name] for name in sorted(params))
  features, shares = observations, []
  for layer in hidden:
    features = jax.nn.relu(features @ layer['w'] + layer['b'])
    shares.append(float(jnp.mean(jnp.all(features == 0, axis=0))))
  return shares


def main(argv: Sequence[str]) -> int:
  """Shows a table of the agents of a study's folder.

  Raises:
    UsageError: the folder holds no study with Q(lambda).
    FatalError: a checkpoint cannot be read.
  """
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'workdir', 'runs/two_colors', 'Folder of a study.', flag_values=flag_values
  )
  cli.parse(flag_values, argv)
  workdir = str(flag_values['workdir'].value)
  study = study_folder.read_study('--workdir', workdir)
  names = [
    name
    for name, agent in study.agents.items()
    if agent.kind == 'q_lambda' and pathlib.Path(workdir, name).is_dir()
  ]
  if not names:
    raise cli.UsageError(f'--workdir={workdir}: no Q(lambda) has run there')
  devices.one_per_core()
  table = Table('agent', 'layer', 'dead units', 'least', 'most', box=None)
  observations = all_observations()
  for name in names:
    agent_run = run.AgentRun(study, name, workdir)
    params = agent_run.params
    agent_run.close()
    # [seeds, layers].
    shares = np.asarray(
      [
        dead_shares(jax.tree.map(lambda x, i=i: x[i], params), observations)
        for i in range(study.num_seeds)
      ]
    )
    for layer, column in enumerate(shares.T, start=1):
      values = (column.mean(), column.min(), column.max())
      table.add_row(name, str(layer), *(f'{x:.0%}' for x in values))
  Console().print(table)
  return 0


if __name__ == '__main__':
  cli.run_main(main)
