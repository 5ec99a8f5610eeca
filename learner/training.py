"""The agent's jitted training step: the engine, applied to actor-critic.

From a batch of unrolls to new parameters and meta-parameters, in one call.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from agents import (
  losses,
  meta_parameters,
  networks,
  observations,
  optimizers,
  types,
)
from configs import checks, schema
from learner import engine, matching

Metrics = dict[str, jax.Array]


class TrainingState(NamedTuple):
  """Everything that learning changes: a pytree of arrays."""

  params: types.Params
  opt_state: optax.OptState
  meta_params: meta_parameters.MetaParams
  meta_opt_state: optax.OptState
  # int32 []: inner updates so far.
  num_updates: jax.Array


class TrainBatch(NamedTuple):
  """What one training step consumes, as drawn from replay.

  Every field of `inner` has leading axes [K, B], online unrolls first; every
  field of `bootstrap` has [L - 1, R].
  """

  inner: types.Unroll
  bootstrap: types.Unroll


class LearnerData(NamedTuple):
  """One batch [B, ...] as the losses need it."""

  # uint8 [B, T + 1, H, W, S * C].
  observations: jax.Array
  transitions: losses.Transitions


class DeviceUnrolls(NamedTuple):
  """The fields of `Unroll` that the device needs, and where they came from."""

  frames: jax.Array
  starts: jax.Array
  actions: jax.Array
  rewards: jax.Array
  discounts: jax.Array
  behaviour_logits: jax.Array
  # float32 [..., B]: 1 for unrolls from the queue, 0 for those from replay.
  is_online: jax.Array


class DeviceBatch(NamedTuple):
  """`TrainBatch` on the devices."""

  inner: DeviceUnrolls
  bootstrap: DeviceUnrolls


def prepare(unrolls: DeviceUnrolls, config: schema.Environment) -> LearnerData:
  """Stacks frames and clips rewards."""
  rewards = unrolls.rewards
  if config.reward_clip > 0:
    rewards = jnp.clip(rewards, -config.reward_clip, config.reward_clip)
  return LearnerData(
    observations.stack_frames(
      unrolls.frames, unrolls.starts, config.frame_stack
    ),
    losses.Transitions(
      unrolls.actions,
      rewards,
      unrolls.discounts,
      unrolls.behaviour_logits,
      unrolls.is_online,
    ),
  )


class Objectives(NamedTuple):
  """The functions that the engine combines; each takes `LearnerData`."""

  # The loss with meta-learned hyper-parameters, and with the fixed ones.
  inner_loss: engine.Loss
  plain_loss: engine.Loss
  matching: engine.MatchingFunction


def make_objectives(
  config: schema.Config, network: hk.Transformed
) -> Objectives:
  """Returns the losses of `config`, as functions of network parameters."""

  def outputs(params: types.Params, data: LearnerData) -> types.NetworkOutput:
    batch_shape = data.observations.shape[:2]
    flat = data.observations.reshape(-1, *data.observations.shape[2:])
    output = network.apply(params, None, flat)
    return jax.tree.map(lambda x: x.reshape(*batch_shape, *x.shape[1:]), output)

  def loss(
    params: types.Params,
    frozen_params: types.Params,
    hypers: types.Hypers,
    data: LearnerData,
  ) -> tuple[jax.Array, losses.LossTerms]:
    terms = losses.actor_critic_loss(
      outputs(params, data),
      outputs(frozen_params, data),
      data.transitions,
      hypers,
      config.loss,
    )
    return terms.total, terms

  def inner_loss(
    params: types.Params,
    frozen_params: types.Params,
    meta_params: meta_parameters.MetaParams,
    data: LearnerData,
  ) -> tuple[jax.Array, losses.LossTerms]:
    hypers = meta_parameters.to_hypers(meta_params, config.meta.parameters)
    return loss(params, frozen_params, hypers, data)

  def plain_loss(
    params: types.Params,
    frozen_params: types.Params,
    meta_params: None,
    data: LearnerData,
  ) -> tuple[jax.Array, losses.LossTerms]:
    del meta_params
    hypers = meta_parameters.fixed_hypers(config.meta.parameters)
    return loss(params, frozen_params, hypers, data)

  def match(
    target: types.Params, params: types.Params, data: LearnerData
  ) -> tuple[jax.Array, matching.MatchingTerms]:
    # The state after the last step only bootstraps: it was not acted in.
    acted = jax.tree.map(lambda x: x[:, :-1], outputs(target, data))
    output = jax.tree.map(lambda x: x[:, :-1], outputs(params, data))
    terms = matching.kl_and_value(acted, output, config.meta)
    return terms.total, terms

  return Objectives(inner_loss, plain_loss, match)


def make_meta_step(
  config: schema.Config, network: hk.Transformed
) -> Callable[[TrainingState, engine.MetaData], tuple[TrainingState, Metrics]]:
  """Returns the pure training step for prepared data.

  `mode=none` makes plain updates; `mode=mg` differentiates the plain loss at
  x^(K); `mode=bmg` matches a bootstrapped target.
  """
  objectives = make_objectives(config, network)
  optimizer = optimizers.make_optimizer(config.optimizer, config.total_updates)
  plain_update = engine.gradient_update(objectives.plain_loss, optimizer)
  update = engine.gradient_update(objectives.inner_loss, optimizer)
  if config.meta.mode == 'bmg':
    outer_loss = engine.bootstrapped_loss(
      engine.grounded_bootstrap(update, plain_update), objectives.matching
    )
  else:
    outer_loss = engine.direct_loss(objectives.plain_loss)
  meta_step = engine.meta_step(
    update, outer_loss, optimizers.make_meta_optimizer(config.meta)
  )

  def plain_step(
    state: TrainingState, data: engine.MetaData
  ) -> tuple[TrainingState, Metrics]:
    agent, aux = engine.apply_updates(
      plain_update,
      engine.AgentState(state.params, state.opt_state),
      None,
      data.inner,
    )
    state = state._replace(params=agent.params, opt_state=agent.opt_state)
    return state, inner_metrics(aux)

  def meta_learned_step(
    state: TrainingState, data: engine.MetaData
  ) -> tuple[TrainingState, Metrics]:
    output = meta_step(
      engine.AgentState(state.params, state.opt_state),
      state.meta_params,
      state.meta_opt_state,
      data,
    )
    state = state._replace(
      params=output.agent.params,
      opt_state=output.agent.opt_state,
      meta_params=output.meta_params,
      meta_opt_state=output.meta_opt_state,
    )
    metrics = inner_metrics(output.inner_aux)
    metrics['meta/grad_norm'] = optax.global_norm(output.meta_gradient)
    if config.meta.mode == 'bmg':
      metrics['meta/matching_loss'] = output.outer_loss
      metrics['meta/kl'] = output.outer_aux.kl
    else:
      metrics['meta/outer_loss'] = output.outer_loss
    return state, metrics

  meta_learns = config.meta.mode != 'none'
  make_updates = meta_learned_step if meta_learns else plain_step

  def step(
    state: TrainingState, data: engine.MetaData
  ) -> tuple[TrainingState, Metrics]:
    hypers = meta_parameters.to_hypers(
      state.meta_params if meta_learns else {}, config.meta.parameters
    )
    state, metrics = make_updates(state, data)
    finite = {
      f'finite/{name}': jnp.isfinite(value) for name, value in metrics.items()
    }
    finite['finite'] = jnp.all(jnp.stack(list(finite.values())))
    values = {
      f'meta/{name}': jnp.asarray(value, jnp.float32)
      for name, value in hypers._asdict().items()
    }
    num_updates = state.num_updates + len(data.inner)
    state = state._replace(num_updates=num_updates)
    return state, metrics | values | finite

  return step


def inner_metrics(
  aux: Sequence[tuple[types.Params, losses.LossTerms]],
) -> Metrics:
  """Loss terms and gradient norm of the last of K updates."""
  grads, terms = aux[-1]
  metrics = {f'loss/{k}': value for k, value in terms._asdict().items()}
  metrics['grad_norm'] = optax.global_norm(grads)
  return metrics


class TrainStep:
  """The training step, compiled for some devices; batches are split over them.

  Parameters are replicated and every batch is sharded along B (and R), so that
  the result does not depend on the number of devices.
  """

  def __init__(
    self,
    config: schema.Config,
    num_actions: int,
    devices: Sequence[jax.Device],
  ):
    """Builds the step; nothing is compiled before the first call.

    Args:
      config: the run's configuration.
      num_actions: A, of the game.
      devices: to spread the batch over.

    Raises:
      ConfigError: a batch cannot be divided among the devices.
    """
    _check_divisible(config, len(devices))
    self._config = config
    self._num_actions = num_actions
    self._network = networks.make_network(config.agent, num_actions)
    self._optimizer = optimizers.make_optimizer(
      config.optimizer, config.total_updates
    )
    mesh = jax.sharding.Mesh(np.asarray(devices), ('batch',))
    spec = jax.sharding.PartitionSpec
    self._replicated = jax.sharding.NamedSharding(mesh, spec())
    # Leading axes are [K, B] and [L - 1, R].
    self._sharded = jax.sharding.NamedSharding(mesh, spec(None, 'batch'))
    self._compiled = jax.jit(self._pure_step(), donate_argnums=0)

  def _pure_step(
    self,
  ) -> Callable[[TrainingState, DeviceBatch], tuple[TrainingState, Metrics]]:
    config = self._config
    meta_step = make_meta_step(config, self._network)

    def batches(unrolls: DeviceUnrolls, count: int) -> list[LearnerData]:
      return [
        prepare(jax.tree.map(lambda x, i=i: x[i], unrolls), config.env)
        for i in range(count)
      ]

    def step(
      state: TrainingState, batch: DeviceBatch
    ) -> tuple[TrainingState, Metrics]:
      data = engine.MetaData(
        inner=batches(batch.inner, config.meta.inner_updates),
        bootstrap=batches(batch.bootstrap, config.meta.num_bootstrap_batches),
      )
      return meta_step(state, data)

    return step

  def init(self, seed: int) -> TrainingState:
    """Returns the initial state, replicated over the devices."""
    env = self._config.env
    height, width, channels = env.frame_shape
    observation = np.zeros(
      (1, height, width, channels * env.frame_stack), np.uint8
    )
    params = self._network.init(jax.random.key(seed), observation)
    meta_params = meta_parameters.initial(self._config.meta.parameters)
    state = TrainingState(
      params=params,
      opt_state=self._optimizer.init(params),
      meta_params=meta_params,
      meta_opt_state=optimizers.make_meta_optimizer(self._config.meta).init(
        meta_params
      ),
      num_updates=jnp.zeros((), jnp.int32),
    )
    return self.place(state)

  def place(self, state: TrainingState) -> TrainingState:
    """Copies a state, of NumPy arrays for instance, to every device."""
    return jax.device_put(state, self._replicated)

  def put(self, batch: TrainBatch) -> DeviceBatch:
    """Sends a batch of NumPy unrolls to the devices, split along B and R."""
    num_online = self._config.replay.online_batch
    device_batch = DeviceBatch(
      inner=_select(batch.inner, num_online),
      bootstrap=_select(batch.bootstrap, num_online=0),
    )
    return jax.device_put(device_batch, self._sharded)

  def step(
    self, state: TrainingState, batch: DeviceBatch
  ) -> tuple[TrainingState, Metrics]:
    """Makes K updates and one meta-update; `state` must not be used again."""
    return self._compiled(state, batch)


def _select(unrolls: types.Unroll, num_online: int) -> DeviceUnrolls:
  """Keeps what the device needs; the first `num_online` of B are online."""
  is_online = np.zeros(unrolls.actions.shape[:2], np.float32)
  is_online[:, :num_online] = 1.0
  fields: dict[str, Any] = {
    name: getattr(unrolls, name)
    for name in DeviceUnrolls._fields
    if name != 'is_online'
  }
  fields['is_online'] = is_online
  return DeviceUnrolls(**fields)


def _check_divisible(config: schema.Config, num_devices: int) -> None:
  sizes = {'replay.online_batch + replay_batch': config.replay.batch_size}
  if config.meta.num_bootstrap_batches:
    sizes['meta.bootstrap_batch'] = config.meta.bootstrap_batch
  for field, size in sizes.items():
    checks.check(
      size % num_devices == 0,
      field,
      size,
      f'must be divisible by the {num_devices} devices of the learner',
    )
