"""The agent's learning algorithm: the engine, applied to actor-critic.

Pure functions, from prepared data to new parameters and meta-parameters.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bmg import engine
from bmg.agents import context as context_lib
from bmg.agents import meta_parameters, optimizers, types
from bmg.agents import metrics as metrics_lib
from bmg.agents import objectives as objectives_lib
from bmg.agents.metrics import Metrics
from bmg.configs import schema


class TrainingState(NamedTuple):
  """Everything that learning changes: a pytree of arrays."""

  params: types.Params
  opt_state: optax.OptState
  meta: engine.MetaState
  # The last one, to compare the next with.
  meta_gradient: meta_parameters.MetaParams
  # None without a meta-network.
  context: context_lib.Context | None
  # int32 []: the agent's updates so far.
  num_updates: jax.Array


class StepData(NamedTuple):
  """The batches of one training step; see `training.TrainBatch`."""

  own: Sequence[objectives_lib.LearnerData]
  bootstrap: Sequence[objectives_lib.LearnerData]


class Learning(NamedTuple):
  """The training step for prepared data, as a pair of pure functions."""

  # (random key, image uint8 [1, H, W, S * C]) -> state.
  init: Callable[[jax.Array, np.ndarray], TrainingState]
  # (state, data) -> (next state, metrics).
  step: Callable[[TrainingState, StepData], tuple[TrainingState, Metrics]]


def make_learning(config: schema.Config, network: hk.Transformed) -> Learning:
  """Puts the engine's parts together as `config` says.

  `mode=none` makes updates with the fixed hyper-parameters; `mode=mg`
  differentiates the plain loss at x^(K); `mode=bmg` matches a bootstrapped
  target.
  """
  meta = config.meta
  context_size = len(meta.context.inputs) * meta.context.length
  parametrization = meta_parameters.make_parametrization(
    meta, config.agent.num_heads, context_size
  )
  objectives = objectives_lib.make_objectives(config, network, parametrization)
  optimizer = optimizers.make_optimizer(
    config.optimizer,
    config.total_updates,
    meta.differentiate_second_moments,
  )
  fixed_update = engine.gradient_update(objectives.fixed_loss, optimizer)
  update = engine.gradient_update(
    objectives.inner_loss, optimizer, rematerialize=meta.inner_updates > 1
  )
  learner = engine.meta_learner(
    update,
    _make_outer_loss(config, objectives, update, optimizer),
    optimizers.make_meta_optimizer(meta, config.meta_learning_rate),
  )

  def init(rng: jax.Array, image: np.ndarray) -> TrainingState:
    params = network.init(rng, image)
    meta_params = parametrization.init(jax.random.fold_in(rng, 1))
    return TrainingState(
      params=params,
      opt_state=optimizer.init(params),
      meta=learner.init(meta_params, params),
      meta_gradient=jax.tree.map(jnp.zeros_like, meta_params),
      context=context_lib.initial(meta.context.length, len(meta.context.inputs))
      if meta.context.inputs
      else None,
      num_updates=jnp.zeros((), jnp.int32),
    )

  def fixed_step(
    state: TrainingState, data: StepData
  ) -> tuple[TrainingState, Sequence[engine.UpdateAux], Metrics]:
    agent = engine.AgentState(state.params, state.opt_state)
    agent, aux = engine.apply_updates(fixed_update, agent, None, data.own)
    state = state._replace(params=agent.params, opt_state=agent.opt_state)
    return state, aux, {}

  def meta_learned_step(
    state: TrainingState, data: StepData
  ) -> tuple[TrainingState, Sequence[engine.UpdateAux], Metrics]:
    agent = engine.AgentState(state.params, state.opt_state)
    before, meta_data = _split(data, meta)
    agent, first_aux = engine.apply_updates(
      update, agent, state.meta.params, before
    )
    output = learner.step(agent, state.meta, meta_data)
    metrics = metrics_lib.meta_metrics(output, state.meta_gradient, meta.mode)
    metrics |= metrics_lib.travel_metrics(
      lambda meta_params: parametrization.travel(
        meta_params, meta_data.final.context
      ),
      state.meta.params,
      output.meta_update,
      config.meta_learning_rate,
    )
    state = state._replace(
      params=output.agent.params,
      opt_state=output.agent.opt_state,
      meta=output.meta,
      meta_gradient=output.meta_gradient,
    )
    return state, [*first_aux, *output.agent_aux], metrics

  meta_learns = meta.mode != 'none'
  make_updates = meta_learned_step if meta_learns else fixed_step

  def step(
    state: TrainingState, data: StepData
  ) -> tuple[TrainingState, Metrics]:
    context = None
    if state.context is not None:
      context = context_lib.features(state.context)
      data = StepData(*(_with_context(batches, context) for batches in data))
    hypers = meta_parameters.fixed_hypers(meta.parameters)
    if meta_learns:
      hypers = parametrization.hypers(state.meta.params, context)
    state, aux, metrics = make_updates(state, data)
    metrics |= metrics_lib.agent_metrics(aux[-1])
    metrics |= metrics_lib.finite_metrics(metrics)
    metrics |= metrics_lib.hyper_metrics(hypers, meta.parameters.learned)
    if state.context is not None:
      state = state._replace(
        context=_look_back(state.context, data.own, aux, meta.context)
      )
    state = state._replace(num_updates=state.num_updates + len(data.own))
    return state, metrics

  return Learning(init, step)


def _make_outer_loss(
  config: schema.Config,
  objectives: objectives_lib.Objectives,
  update: engine.UpdateRule,
  optimizer: optax.GradientTransformation,
) -> engine.OuterLoss:
  meta = config.meta
  if meta.mode != 'bmg':
    if meta.outer_kl_weight == 0:
      return engine.direct_loss(objectives.plain_loss)
    return engine.direct_loss(
      objectives.plain_loss, objectives.policy_change, meta.outer_kl_weight
    )
  target_optimizer = optimizers.make_target_optimizer(meta.target_optimizer)
  target_init = target_optimizer and target_optimizer.init
  plain_update = engine.gradient_update(
    objectives.plain_loss, target_optimizer or optimizer
  )
  if meta.target == 'grounded':
    bootstrap = engine.grounded_bootstrap(update, plain_update, target_init)
  elif meta.target == 'meta_learned':
    bootstrap = engine.learned_bootstrap(update)
  else:
    bootstrap = engine.plain_bootstrap(plain_update, target_init)
  return engine.bootstrapped_loss(
    bootstrap, objectives.matching, keep_updates=meta.target_data == 'online'
  )


def _split(
  data: StepData, meta: schema.Meta
) -> tuple[Sequence[objectives_lib.LearnerData], engine.MetaData]:
  """Returns the batches of the updates before the meta-step, and its own."""
  first, last = meta.updates_between, meta.updates_between + meta.inner_updates
  inner = data.own[first:last]
  final = inner[-1]
  bootstrap = data.bootstrap
  if meta.mode == 'bmg' and meta.target_data == 'online':
    bootstrap = data.own[last:]
    final = data.own[-1]
  elif meta.mode == 'bmg' and meta.target_data == 'batch':
    bootstrap = [final] * (meta.bootstrap_length - 1)
  return data.own[:first], engine.MetaData(inner, bootstrap, final)


def _with_context(
  batches: Sequence[objectives_lib.LearnerData], context: jax.Array
) -> list[objectives_lib.LearnerData]:
  return [batch._replace(context=context) for batch in batches]


def _look_back(
  context: context_lib.Context,
  batches: Sequence[objectives_lib.LearnerData],
  auxes: Sequence[engine.UpdateAux],
  config: schema.Context,
) -> context_lib.Context:
  """Takes the updates that were just made into the context."""
  for batch, aux in zip(batches, auxes, strict=True):
    # Replay would say how the agent did long ago.
    is_online = batch.transitions.is_online
    rewards = jnp.mean(batch.transitions.rewards, axis=1)
    values = {
      'reward': jnp.sum(rewards * is_online) / jnp.sum(is_online),
      'td_error': aux.loss_aux.main.td_error,
      'value': aux.loss_aux.main.mean_value,
    }
    statistics = jnp.array([values[name] for name in config.inputs])
    context = context_lib.append(context, statistics, config.decay)
  return context
