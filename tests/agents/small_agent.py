"""A small agent with the real losses and optimisers, and plain oracles."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bmg import engine
from bmg.agents import losses, objectives, types
from bmg.configs import schema

B, T, A, FEATURES, HEADS = 3, 4, 3, 5, 2


def network():
  """A small MLP in place of a convolutional torso; any dtype."""

  def forward(observations):
    hidden = jnp.tanh(hk.Linear(6)(observations.astype(jnp.float64) / 255.0))
    logits = jnp.stack([hk.Linear(A)(hidden) for _ in range(HEADS)])
    values = jnp.stack([hk.Linear(1)(hidden)[..., 0] for _ in range(HEADS)])
    outer_values = hk.Linear(1)(hidden)[..., 0]
    return types.NetworkOutput(types.HeadOutput(logits, values), outer_values)

  return hk.transform(forward)


def config(optimizer='rmsprop', **meta):
  """A configuration in which everything that can act on a gradient does.

  Clipping, annealing, importance weights beyond their clips, states out of the
  trust region, an outer critic, and all meta-parameters away from the flat ends
  of their sigmoids and from their fixed values.
  """
  defaults = schema.MetaParameters()
  parameters = {
    spec.name: dataclasses.replace(
      getattr(defaults, spec.name),
      learned=True,
      initial=0.7 * getattr(defaults, spec.name).high,
    )
    for spec in dataclasses.fields(defaults)
  }
  return schema.Config(
    num_frames=10_000_000,
    agent=schema.Agent(auxiliary_heads=HEADS - 1, outer_critic=True),
    loss=schema.Loss(
      rho_bar=1.3, trust_region=0.15, reduction='mean', half_value_loss=True
    ),
    # SGD steps on a clipped gradient are tiny without a larger rate, and their
    # finite differences then drown in rounding errors.
    optimizer=schema.Optimizer(
      name=optimizer,
      learning_rate=2.0 if optimizer == 'sgd' else 0.05,
      max_grad_norm=0.05,
    ),
    meta=schema.Meta(
      **{'parameters': schema.MetaParameters(**parameters), **meta}
    ),
  )


def batch(seed):
  """Random data, with steps that end an episode."""
  rng = np.random.default_rng(seed)
  return objectives.LearnerData(
    observations=jnp.asarray(
      rng.integers(0, 255, size=(B, T + 1, FEATURES)), jnp.uint8
    ),
    transitions=losses.Transitions(
      actions=jnp.asarray(rng.integers(A, size=(B, T)), jnp.int32),
      rewards=jnp.asarray(rng.normal(size=(B, T))),
      discounts=jnp.asarray(1.0 * (rng.random((B, T)) > 0.1)),
      behaviour_logits=jnp.asarray(rng.normal(size=(B, T, A))),
      is_online=jnp.asarray([1.0, 1.0, 0.0]),
    ),
  )


def plain_update(loss, optimizer):
  """An update rule in plain code, so that the oracle shares no trick."""

  @jax.jit
  def update(agent, meta_params, data):
    grads, _ = jax.grad(loss, has_aux=True)(
      agent.params, agent.params, meta_params, data
    )
    steps, opt_state = optimizer.update(grads, agent.opt_state, agent.params)
    params = optax.apply_updates(agent.params, steps)
    return engine.AgentState(params, opt_state)

  return update


def apply_all(update, agent, meta_params, batches):
  """Applies an update rule once per batch."""
  for data in batches:
    agent = update(agent, meta_params, data)
  return agent


def directional_differences(function, point, directions, step=1e-5):
  """Central differences of `function` at `point`, along each direction."""

  def moved(scale, direction):
    return function(jax.tree.map(lambda x, d: x + scale * d, point, direction))

  values = jax.vmap(moved, in_axes=(None, 0))
  return (values(step, directions) - values(-step, directions)) / (2 * step)


def basis(point):
  """All unit vectors of a pytree, stacked along a leading axis."""
  flat, unflatten = jax.flatten_util.ravel_pytree(point)
  return jax.vmap(unflatten)(jnp.eye(flat.size, dtype=flat.dtype))


def squared_values(target, point, config):
  """A matching function that no one else has."""
  del target, config
  return jnp.sum(point.output.values**2)
