"""Runs many seeds of one agent at once, records and resumes them."""

import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.experimental import shard_map

from bmg.configs import schema as atari_schema
from bmg.configs.schema import fields
from bmg.configs.two_colors import schema
from bmg.experiments.two_colors import actor_critic, q_lambda
from bmg.experiments.two_colors import agent as agent_lib
from bmg.learner import checkpoints

PyTree = Any

_MAKERS = {
  'actor_critic': actor_critic.make_agent,
  'q_lambda': q_lambda.make_agent,
}


class Progress(NamedTuple):
  """What a run has to show for itself so far."""

  name: str
  num_steps: int
  total_steps: int
  # Of each seed, in this call, with compilation.
  steps_per_second: float
  # Means over seeds: of the newest row, and the sum of all rewards.
  metrics: Mapping[str, float]
  total_return: float

  @property
  def seconds_left(self) -> float:
    """Until all steps are made."""
    return (self.total_steps - self.num_steps) / self.steps_per_second


@dataclasses.dataclass(frozen=True)
class Plan:
  """How the steps of a run are divided: into rows, and rows into chunks."""

  steps_per_row: int
  updates_per_row: int
  rows_per_chunk: int
  num_rows: int

  @property
  def num_steps(self) -> int:
    """Of the whole run, for each seed."""
    return self.num_rows * self.steps_per_row


def make_plan(study: schema.Study, steps_per_update: int) -> Plan:
  """Rounds the periods of `study` to whole updates and rows."""
  updates = max(1, round(study.log_period_steps / steps_per_update))
  steps = updates * steps_per_update
  return Plan(
    steps_per_row=steps,
    updates_per_row=updates,
    rows_per_chunk=max(1, study.checkpoint_period_steps // steps),
    num_rows=math.ceil(study.num_steps / steps),
  )


def make_agent(study: schema.Study, name: str) -> agent_lib.Agent:
  """Returns the agent of that name, in the study's world."""
  config = study.agents[name]
  return _MAKERS[config.kind](config, study.env)


class AgentRun:
  """The seeds of one agent, which live side by side on all local devices."""

  def __init__(self, study: schema.Study, name: str, workdir: str):
    """Begins, or goes on from the checkpoint in <workdir>/<name>.

    Args:
      study: the agents and their world.
      name: of the agent to run.
      workdir: the study's folder.

    Raises:
      FatalError: the checkpoint there is of another agent or study, or cannot
        be read.
    """
    self._name = name
    self._agent = make_agent(study, name)
    self.plan = make_plan(study, self._agent.num_steps)
    self._csv = pathlib.Path(workdir, f'{name}.csv')
    folder = os.path.abspath(os.path.join(workdir, name, 'checkpoints'))
    os.makedirs(folder, exist_ok=True)
    self._store = checkpoints.CheckpointStore(
      folder,
      atari_schema.Learner(keep_checkpoints=1, keep_best=0),
      _fingerprint(study, name),
    )
    self._sharding = make_sharding(study.num_seeds)
    keys = jax.random.split(jax.random.PRNGKey(study.seed), study.num_seeds)
    self._state = jax.jit(
      jax.vmap(self._agent.init), out_shardings=self._sharding
    )(keys)
    shapes = jax.eval_shape(jax.vmap(self._agent.step), self._state)[1]
    self._metrics = sorted(shapes, key=lambda name: name != agent_lib.REWARD)
    # Rows past `_num_rows` are not there yet.
    self._history = np.full(
      (self.plan.num_rows, study.num_seeds, len(self._metrics)),
      np.nan,
      np.float32,
    )
    self._num_rows = 0
    self._restore()
    self._chunks: dict[int, Callable[[PyTree], Any]] = {}

  @property
  def finished(self) -> bool:
    """Whether all steps are made."""
    return self._num_rows == self.plan.num_rows

  @property
  def params(self) -> PyTree:
    """Parameters of the agents of all seeds, [seeds] leading."""
    return jax.device_get(self._state.agent.params)

  def run(
    self,
    should_stop: Callable[[], bool],
    show: Callable[[Progress], None],
  ) -> bool:
    """Goes on to the end, or until `should_stop` says so.

    Everything that was done is saved before each call of these.

    Returns:
      Whether all steps are made.
    """
    start, first_row = time.monotonic(), self._num_rows
    while not self.finished and not should_stop():
      self._advance()
      self._save()
      rows = self._num_rows - first_row
      seconds = time.monotonic() - start
      show(self._progress(rows * self.plan.steps_per_row / seconds))
    self.write_csv()
    return self.finished

  def frame(self) -> pd.DataFrame:
    """Returns the records: a row per seed and row of the plan."""
    history = self._history[: self._num_rows]
    num_rows, num_seeds, _ = history.shape
    steps = (1 + np.arange(num_rows)) * self.plan.steps_per_row
    columns: dict[str, np.ndarray] = {
      'num_steps': np.repeat(steps, num_seeds),
      'seed': np.tile(np.arange(num_seeds), num_rows),
    }
    for index, name in enumerate(self._metrics):
      columns[name] = history[:, :, index].reshape(-1)
    return pd.DataFrame(columns)

  def write_csv(self) -> None:
    """Writes the records anew, so that they have neither gap nor repeat."""
    temporary = self._csv.with_name(f'.{self._csv.name}')
    self.frame().to_csv(temporary, index=False, float_format='%.6g')
    os.replace(temporary, self._csv)

  def close(self) -> None:
    self._store.close()

  def _advance(self) -> None:
    """Makes the steps of one chunk."""
    num_rows = min(
      self.plan.rows_per_chunk, self.plan.num_rows - self._num_rows
    )
    if num_rows not in self._chunks:
      self._chunks[num_rows] = make_chunk(
        self._agent,
        self._sharding,
        self.plan.updates_per_row,
        num_rows,
        self._state,
      )
    self._state, metrics = self._chunks[num_rows](self._state)
    for index, name in enumerate(self._metrics):
      rows = slice(self._num_rows, self._num_rows + num_rows)
      # [seeds, rows].
      self._history[rows, :, index] = np.asarray(metrics[name]).T
    self._num_rows += num_rows

  def _save(self) -> None:
    state = {
      'agent': jax.device_get(self._state),
      'history': self._history,
    }
    counters = {'num_rows': self._num_rows}
    self._store.save(self._num_rows, state, counters, math.nan)

  def _restore(self) -> None:
    saved = self._store.restore(
      {'agent': self._state, 'history': self._history}
    )
    if saved is not None:
      state, counters = saved
      self._state = jax.device_put(state['agent'], self._sharding)
      self._history = np.array(state['history'])
      self._num_rows = counters['num_rows']

  def _progress(self, steps_per_second: float) -> Progress:
    history = self._history[: self._num_rows]
    last = history[-1].mean(axis=0)
    rewards = history[:, :, self._metrics.index(agent_lib.REWARD)]
    return Progress(
      name=self._name,
      num_steps=self._num_rows * self.plan.steps_per_row,
      total_steps=self.plan.num_steps,
      steps_per_second=steps_per_second,
      metrics=dict(zip(self._metrics, last.tolist(), strict=True)),
      total_return=self.plan.steps_per_row
      * float(rewards.mean(axis=1, dtype=np.float64).sum()),
    )


def _fingerprint(study: schema.Study, name: str) -> dict[str, Any]:
  """Returns what a checkpoint and the study that goes on must agree on."""
  values = schema.to_dict(study)
  own = ('num_steps', 'num_seeds', 'seed', 'log_period_steps')
  return {
    **{field: values[field] for field in own},
    **fields.flatten(values['env'], 'env'),
    **fields.flatten(values['agents'][name], f'agents.{name}'),
  }


def make_chunk(
  agent: agent_lib.Agent,
  sharding: jax.sharding.NamedSharding,
  updates_per_row: int,
  num_rows: int,
  states: PyTree,
) -> Callable[[PyTree], tuple[PyTree, agent_lib.Metrics]]:
  """Compiles some rows of all seeds.

  Args:
    agent: to run.
    sharding: of the seeds, from `make_sharding`.
    updates_per_row: calls of `agent.step` that a row is the mean of.
    num_rows: of the result.
    states: of all seeds, for their shapes.

  Returns:
    A function of the states of all seeds, [seeds] leading, which it uses up. It
    returns the next ones and the metrics, [seeds, num_rows].
  """

  def row(
    state: agent_lib.State, _: None
  ) -> tuple[agent_lib.State, agent_lib.Metrics]:
    state, metrics = jax.lax.scan(
      lambda state, _: agent.step(state), state, length=updates_per_row
    )
    return state, jax.tree.map(jnp.mean, metrics)

  def chunk(
    state: agent_lib.State,
  ) -> tuple[agent_lib.State, agent_lib.Metrics]:
    return jax.lax.scan(row, state, length=num_rows)

  chunks = jax.jit(_over_seeds(chunk, sharding), donate_argnums=0)
  return chunks.lower(states).compile()


def make_sharding(num_seeds: int) -> jax.sharding.NamedSharding:
  """Spreads the seeds evenly over as many local devices as that allows."""
  devices = jax.local_devices()
  count = math.gcd(num_seeds, len(devices))
  mesh = jax.sharding.Mesh(np.asarray(devices[:count]), ('seed',))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('seed'))


def _over_seeds(
  function: Callable[[PyTree], PyTree], sharding: jax.sharding.NamedSharding
) -> Callable[[PyTree], PyTree]:
  """Returns `function` for all seeds at once, each device with its share."""

  def local(states: PyTree) -> PyTree:
    if jax.default_backend() == 'cpu':
      # One after the other: a seed's parameters then stay in a core's cache.
      return jax.lax.map(function, states)
    return jax.vmap(function)(states)

  return shard_map.shard_map(
    local,
    mesh=sharding.mesh,
    in_specs=sharding.spec,
    out_specs=sharding.spec,
    # Seeds have nothing to say to each other.
    check_rep=False,
  )
