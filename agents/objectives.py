"""The agent's losses as functions of parameters, which the engine combines."""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from bmg import engine
from bmg.agents import losses, matching, meta_parameters, observations, types
from bmg.configs import schema


class LearnerData(NamedTuple):
  """One batch [B, ...] as the losses need it."""

  # uint8 [B, T + 1, H, W, S * C].
  observations: jax.Array
  transitions: losses.Transitions
  # float [N * C] for a meta-network, or None.
  context: jax.Array | None = None


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


class MatchingTerms(NamedTuple):
  """What is logged of a match."""

  # Mean KL(target policy || policy), or None if matching is in parameter space,
  # where it would cost another pass.
  kl: jax.Array | None


class Objectives(NamedTuple):
  """The functions that the engine combines; each takes `LearnerData`."""

  # All heads with meta-learned hyper-parameters, and with the fixed ones.
  inner_loss: engine.Loss
  fixed_loss: engine.Loss
  # The true objective: the main policy with the fixed hyper-parameters.
  plain_loss: engine.Loss
  matching: engine.MatchingFunction
  # KL(policy || policy of the first argument), for STACX's outer loss.
  policy_change: engine.MatchingFunction


def make_objectives(
  config: schema.Config,
  network: hk.Transformed,
  parametrization: meta_parameters.Parametrization,
) -> Objectives:
  """Returns the losses of `config`, as functions of network parameters."""
  fixed_hypers = meta_parameters.fixed_hypers(config.meta.parameters)
  match = matching.get_function(config.meta.matching)

  def outputs(params: types.Params, images: jax.Array) -> types.NetworkOutput:
    """Applies the network to images [B, T, ...]."""
    batch_shape = images.shape[:2]
    flat = images.reshape(-1, *images.shape[2:])
    heads, outer_values = network.apply(params, None, flat)
    # [H, B * T, ...] and [B * T].
    return types.NetworkOutput(
      jax.tree.map(
        lambda x: x.reshape(x.shape[0], *batch_shape, *x.shape[2:]), heads
      ),
      None if outer_values is None else outer_values.reshape(batch_shape),
    )

  def heads_loss(
    params: types.Params,
    frozen_params: types.Params,
    hypers: types.Hypers,
    data: LearnerData,
  ) -> tuple[jax.Array, losses.LossTerms]:
    terms = losses.agent_loss(
      outputs(params, data.observations),
      outputs(frozen_params, data.observations),
      data.transitions,
      hypers,
      fixed_hypers,
      config.loss,
    )
    return terms.total, terms

  def inner_loss(
    params: types.Params,
    frozen_params: types.Params,
    meta_params: meta_parameters.MetaParams,
    data: LearnerData,
  ) -> tuple[jax.Array, losses.LossTerms]:
    hypers = parametrization.hypers(meta_params, data.context)
    return heads_loss(params, frozen_params, hypers, data)

  def fixed_loss(
    params: types.Params,
    frozen_params: types.Params,
    meta_params: meta_parameters.MetaParams,
    data: LearnerData,
  ) -> tuple[jax.Array, losses.LossTerms]:
    del meta_params
    hypers = jax.tree.map(
      lambda value: jnp.full((config.agent.num_heads,), value), fixed_hypers
    )
    return heads_loss(params, frozen_params, hypers, data)

  def plain_loss(
    params: types.Params,
    frozen_params: types.Params,
    meta_params: meta_parameters.MetaParams,
    data: LearnerData,
  ) -> tuple[jax.Array, losses.HeadTerms]:
    del meta_params
    terms = losses.actor_critic_loss(
      outputs(params, data.observations).outer,
      outputs(frozen_params, data.observations).outer,
      data.transitions,
      fixed_hypers,
      config.loss,
    )
    return terms.total, terms

  def point(params: types.Params, data: LearnerData) -> matching.Point:
    stride = config.meta.matching_stride
    if stride == 1:
      # On all states, to share the pass through the network with the losses.
      output = outputs(params, data.observations).outer
      # The state after the last step only bootstraps: it was not acted in.
      output = jax.tree.map(lambda x: x[:, :-1], output)
    else:
      output = outputs(params, data.observations[:, :-1:stride]).outer
    return matching.Point(params, output)

  def compare(
    function: matching.MatchingFunction,
  ) -> Callable[..., tuple[jax.Array, MatchingTerms]]:
    def distance(
      target: types.Params, params: types.Params, data: LearnerData
    ) -> tuple[jax.Array, MatchingTerms]:
      points = point(target, data), point(params, data)
      kl = None
      if function is not matching.l2:
        logits = (each.output.logits for each in points)
        kl = jnp.mean(losses.kl_divergence(*logits))
      return function(*points, config.meta), MatchingTerms(kl)

    return distance

  def policy_change(
    old: types.Params, params: types.Params, data: LearnerData
  ) -> tuple[jax.Array, None]:
    logits = (point(each, data).output.logits for each in (params, old))
    return jnp.mean(losses.kl_divergence(*logits)), None

  return Objectives(
    inner_loss, fixed_loss, plain_loss, compare(match), policy_change
  )
