"""The training step, compiled for the learner's devices."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bmg.agents import algorithm, compilation, networks, types
from bmg.agents import objectives as objectives_lib
from bmg.agents.algorithm import TrainingState
from bmg.agents.metrics import Metrics
from bmg.configs import schema
from bmg.configs.schema import checks


class TrainBatch(NamedTuple):
  """What one training step consumes of this host's data, drawn from replay.

  Every field of `own` has leading axes [U, B], online unrolls first: a batch
  for each of the agent's `meta.updates_per_step` updates. Every field of
  `bootstrap` has [L - 1, R], or [0, B] if targets are made on other data: R
  need not be divisible by the number of devices then.
  """

  own: types.Unroll
  bootstrap: types.Unroll


def zero_batch(config: schema.Config, num_actions: int) -> TrainBatch:
  """Returns one host's batch of zeros, of the shapes and dtypes of a run's."""
  env, meta = config.env, config.meta
  spec = types.unroll_spec(
    config.actors.unroll_length, env.frame_stack, env.frame_shape, num_actions
  )

  def zeros(num_batches: int, size: int) -> types.Unroll:
    shape = (num_batches, size // config.learner.num_hosts)
    return types.Unroll(*(np.zeros((*shape, *x.shape), x.dtype) for x in spec))

  own = zeros(meta.updates_per_step, config.replay.batch_size)
  if not meta.num_bootstrap_batches:
    return TrainBatch(own, types.Unroll(*(x[:0] for x in own)))
  return TrainBatch(
    own, zeros(meta.num_bootstrap_batches, meta.bootstrap_batch)
  )


class DeviceBatch(NamedTuple):
  """`TrainBatch` on the devices: one array for those of all hosts."""

  own: objectives_lib.DeviceUnrolls
  bootstrap: objectives_lib.DeviceUnrolls


class TrainStep:
  """The training step, compiled for some devices; batches are split over them.

  Parameters are replicated and every batch is sharded along B (and R), so that
  the result does not depend on the number of devices, nor on that of hosts.
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
      devices: to spread the batch over, as many of each host.

    Raises:
      ConfigError: a batch cannot be divided among the devices.
    """
    _check_divisible(config, len(devices))
    self._config = config
    self._num_actions = num_actions
    self._learning = algorithm.make_learning(
      config, networks.make_network(config.agent, num_actions)
    )
    mesh = jax.sharding.Mesh(np.asarray(devices), ('batch',))
    spec = jax.sharding.PartitionSpec
    self._replicated = jax.sharding.NamedSharding(mesh, spec())
    # Leading axes are [U, B] and [L - 1, R].
    self._sharded = jax.sharding.NamedSharding(mesh, spec(None, 'batch'))
    self._jitted = jax.jit(
      self._pure_step(),
      donate_argnums=0,
      out_shardings=self._replicated,
      compiler_options=_compiler_options(devices[0].platform),
    )
    self._step: Callable[..., tuple[TrainingState, Metrics]] = self._jitted

  def _pure_step(
    self,
  ) -> Callable[[TrainingState, DeviceBatch], tuple[TrainingState, Metrics]]:
    meta = self._config.meta

    def prepared(
      unrolls: objectives_lib.DeviceUnrolls, count: int
    ) -> list[objectives_lib.LearnerData]:
      return [
        objectives_lib.prepare(
          jax.tree.map(lambda x, i=i: x[i], unrolls), self._config.env
        )
        for i in range(count)
      ]

    def step(
      state: TrainingState, batch: DeviceBatch
    ) -> tuple[TrainingState, Metrics]:
      data = algorithm.StepData(
        prepared(batch.own, meta.updates_per_step),
        prepared(batch.bootstrap, meta.num_bootstrap_batches),
      )
      return self._learning.step(state, data)

    return step

  def init(self, seed: int) -> TrainingState:
    """Returns the initial state, replicated over the devices."""
    env = self._config.env
    height, width, channels = env.frame_shape
    image = np.zeros((1, height, width, channels * env.frame_stack), np.uint8)
    return self.place(self._learning.init(jax.random.key(seed), image))

  def place(self, state: TrainingState) -> TrainingState:
    """Copies a state, of NumPy arrays for instance, to every device.

    All hosts must have the same one.
    """
    return self._to_devices(state, self._replicated)

  def put(self, batch: TrainBatch) -> DeviceBatch:
    """Sends this host's NumPy unrolls to its devices, split along B and R.

    The batch of all hosts lies in their order: host 0's online unrolls, host
    0's replayed ones, host 1's online ones, ...
    """
    num_online = (
      self._config.replay.online_batch // self._config.learner.num_hosts
    )
    device_batch = DeviceBatch(
      own=_select(batch.own, num_online),
      bootstrap=_select(batch.bootstrap, num_online=0),
    )
    return self._to_devices(device_batch, self._sharded)

  def _to_devices(self, tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Makes global arrays of what each host has for its own devices."""
    if self._config.learner.num_hosts == 1:
      return jax.device_put(tree, sharding)
    return jax.tree.map(
      lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
      tree,
    )

  def lower(
    self, state: TrainingState, batch: DeviceBatch
  ) -> jax.stages.Lowered:
    """Returns the step for such arguments before XLA compiles it."""
    return self._jitted.lower(state, batch)

  def compile(self, state: TrainingState) -> None:
    """Compiles the step for such a state and this run's batches, ahead."""
    batch = self.put(zero_batch(self._config, self._num_actions))
    self._step = self.lower(state, batch).compile()

  def step(
    self, state: TrainingState, batch: DeviceBatch
  ) -> tuple[TrainingState, Metrics]:
    """Makes the updates and a meta-update; `state` must not be used again."""
    return self._step(state, batch)


def _compiler_options(platform: str) -> dict[str, bool | str] | None:
  """Has XLA's CPU compiler care for memory as those for accelerators do."""
  options = compilation.compiler_options(platform)
  if options is None:
    return None
  # This one would begin with all batches of a meta-step at once.
  return {**options, 'xla_cpu_enable_concurrency_optimized_scheduler': False}


def _select(
  unrolls: types.Unroll, num_online: int
) -> objectives_lib.DeviceUnrolls:
  """Keeps what the device needs; the first `num_online` of B are online."""
  is_online = np.zeros(unrolls.actions.shape[:2], np.float32)
  is_online[:, :num_online] = 1.0
  fields: dict[str, Any] = {
    name: getattr(unrolls, name)
    for name in objectives_lib.DeviceUnrolls._fields
    if name != 'is_online'
  }
  fields['is_online'] = is_online
  return objectives_lib.DeviceUnrolls(**fields)


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
