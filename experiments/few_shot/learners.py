"""MAML and BMG for an initialisation, on the engine.

The meta-parameters w are where SGD on a task begins. All of the K updates on
the support set are one update rule, `adapt`, and x^(K) has a leading axis of
tasks. MAML descends the loss on the query set at x^(K). BMG has L further SGD
steps, on the query set, make a target from x^(K), and matches the predictions
(Flennerhag et al., 2022, section 6).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bmg import engine
from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import networks
from bmg.experiments.few_shot import tasks as tasks_lib

PyTree = Any
# (state, w, one task) -> (state, aux).
TaskRule = engine.UpdateRule


class Metrics(NamedTuple):
  """What x^(K) is worth on query sets; scalars, means over tasks."""

  loss: jax.Array
  metric: jax.Array


class Learner(NamedTuple):
  """A meta-learner of initialisations; pure functions."""

  # (w) -> state.
  init: Callable[[PyTree], engine.MetaState]
  # (state, tasks) -> (state, ...); tasks have a leading axis.
  step: Callable[[engine.MetaState, tasks_lib.Task], engine.MetaStepOutput]
  # (w, tasks) -> metrics, each [num_tasks].
  evaluate: Callable[[PyTree, tasks_lib.Task], Metrics]


def make_learner(
  config: schema.Learner,
  network: networks.Network,
  objective: networks.Objective,
) -> Learner:
  """Returns the learner that `config` describes."""
  adapt = jax.vmap(
    adaptation(config, network, objective), in_axes=(None, None, 0)
  )
  outer_loss = make_outer_loss(config, network, objective)
  meta = engine.meta_learner(
    adapt, outer_loss, optax.adam(config.meta_learning_rate)
  )
  measure = _measure(network, objective)
  # Adaptation starts from w: there is no agent that goes on.
  nobody = engine.AgentState((), ())

  def step(
    state: engine.MetaState, tasks: tasks_lib.Task
  ) -> engine.MetaStepOutput:
    return meta.step(nobody, state, engine.MetaData([tasks], [], tasks))

  def evaluate(meta_params: PyTree, tasks: tasks_lib.Task) -> Metrics:
    final, _ = adapt(nobody, meta_params, tasks)
    return jax.vmap(measure)(final.params, tasks)

  return Learner(lambda w: meta.init(w, ()), step, evaluate)


def adaptation(
  config: schema.Learner,
  network: networks.Network,
  objective: networks.Objective,
) -> TaskRule:
  """Returns the rule that takes K SGD steps from w on the support set."""
  sgd = _descent(
    config,
    config.inner_learning_rate,
    config.inner_updates,
    network,
    objective,
    constant_gradients=config.first_order,
  )

  def adapt(
    state: engine.AgentState, meta_params: PyTree, task: tasks_lib.Task
  ) -> tuple[engine.AgentState, None]:
    del state
    return engine.AgentState(sgd(meta_params, task.support), ()), None

  return adapt


def make_outer_loss(
  config: schema.Learner,
  network: networks.Network,
  objective: networks.Objective,
) -> engine.OuterLoss:
  """Returns what w descends: of MAML or of BMG, a mean over tasks."""
  measure = jax.vmap(_measure(network, objective))

  def query_loss(
    params: PyTree, frozen_params: PyTree, meta_params: PyTree, tasks: PyTree
  ) -> tuple[jax.Array, Metrics]:
    del frozen_params, meta_params
    metrics = jax.tree.map(jnp.mean, measure(params, tasks))
    return metrics.loss, metrics

  if config.kind == 'maml':
    return engine.direct_loss(query_loss)

  sgd = _descent(
    config,
    config.target_learning_rate or config.inner_learning_rate,
    config.bootstrap_length,
    network,
    objective,
  )

  def pursue(
    state: engine.AgentState, meta_params: PyTree, task: tasks_lib.Task
  ) -> tuple[engine.AgentState, None]:
    del meta_params
    return engine.AgentState(sgd(state.params, task.query), ()), None

  # One update of the bootstrap is L steps on each task.
  bootstrap = engine.plain_bootstrap(jax.vmap(pursue, in_axes=(0, None, 0)))
  divergence = jax.vmap(matching(config, network, objective))

  def match(
    target: PyTree, params: PyTree, tasks: PyTree
  ) -> tuple[jax.Array, Metrics]:
    metrics = jax.tree.map(jnp.mean, measure(params, tasks))
    return jnp.mean(divergence(target, params, tasks)), metrics

  return engine.bootstrapped_loss(bootstrap, match)


def matching(
  config: schema.Learner,
  network: networks.Network,
  objective: networks.Objective,
) -> Callable[[PyTree, PyTree, tasks_lib.Task], jax.Array]:
  """Returns the function (target, x^(K), task) -> divergence, of one task."""

  def divergence(
    target: PyTree, params: PyTree, task: tasks_lib.Task
  ) -> jax.Array:
    inputs = getattr(task, config.matching_inputs).inputs
    outputs = [network.apply(target, inputs), network.apply(params, inputs)]
    if config.matching == 'reverse_kl':
      outputs.reverse()
    return objective.divergence(*outputs)

  return divergence


def _descent(
  config: schema.Learner,
  learning_rate: float,
  num_steps: int,
  network: networks.Network,
  objective: networks.Objective,
  constant_gradients: bool = False,
) -> Callable[[PyTree, tasks_lib.Examples], PyTree]:
  """Returns SGD: (start, examples) -> parameters after `num_steps` steps.

  With ANIL, only the head moves, in adaptation and on the way to a target; the
  rest of the start is the engine's meta-parameters. What is kept for the
  backward pass of a scan of gradient updates is their parameters alone.
  """

  def loss(
    params: PyTree, frozen_params: PyTree, body: PyTree, examples: PyTree
  ) -> tuple[jax.Array, None]:
    del frozen_params
    outputs = network.apply({**body, **params}, examples.inputs)
    return objective.loss(outputs, examples.labels), None

  sgd = optax.sgd(learning_rate)
  if constant_gradients:
    # FOMAML: x^(K) still moves along with w, one for one.
    sgd = optax.chain(_stop_gradients(), sgd)
  update = engine.gradient_update(loss, sgd)

  def descend(start: PyTree, examples: tasks_lib.Examples) -> PyTree:
    body, moving = networks.split_head(start) if config.anil else ({}, start)
    repeated = engine.repeated(
      lambda state, body, _: update(state, body, examples), num_steps
    )
    state = engine.AgentState(moving, sgd.init(moving))
    final, _ = repeated(state, body, None)
    return {**body, **final.params}

  return descend


def _stop_gradients() -> optax.GradientTransformation:
  return optax.stateless(lambda updates, params: jax.lax.stop_gradient(updates))


def _measure(
  network: networks.Network, objective: networks.Objective
) -> Callable[[PyTree, tasks_lib.Task], Metrics]:
  """Returns the function (parameters, task) -> metrics on its query set."""

  def measure(params: PyTree, task: tasks_lib.Task) -> Metrics:
    outputs = network.apply(params, task.query.inputs)
    labels = task.query.labels
    return Metrics(
      objective.loss(outputs, labels), objective.metric(outputs, labels)
    )

  return measure
