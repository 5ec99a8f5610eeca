"""What the two agents have in common."""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from bmg import engine
from bmg.agents import context as context_lib
from bmg.agents import meta_parameters
from bmg.configs.two_colors import schema

PyTree = Any
# Means over steps, by name.
Metrics = dict[str, jax.Array]
REWARD = 'reward'


class State(NamedTuple):
  """The agent, and what meta-learning moves (None if there is none)."""

  agent: engine.AgentState
  meta: engine.MetaState | None


class Agent(NamedTuple):
  """An agent with its world, as a pair of pure functions."""

  # (random key) -> state.
  init: Callable[[jax.Array], State]
  # (state) -> (state after `num_steps` steps of the world, means over them).
  step: Callable[[State], tuple[State, Metrics]]
  num_steps: int


def make_mlp(config: schema.Agent, num_outputs: int, name: str) -> hk.nets.MLP:
  """Returns a network with the agent's hidden layers, of ReLU units."""
  return hk.nets.MLP(
    (*config.hidden, num_outputs),
    w_init=hk.initializers.VarianceScaling(config.initial_scale),
    name=name,
  )


def make_logits(name: str, config: schema.Meta) -> meta_parameters.Logits:
  """Returns what gives the logit of the hyper-parameter `name`."""
  initial = jnp.log(config.initial) - jnp.log1p(-config.initial)
  return meta_parameters.make_logits(
    {name: initial},
    num_heads=1,
    context_size=len(config.context.inputs) * config.context.length,
    hidden=config.context.hidden,
  )


def empty_context(config: schema.Meta) -> context_lib.Context | None:
  """Returns a context that has seen nothing yet; None if there is none."""
  context = config.context
  if not context.inputs:
    return None
  return context_lib.initial(context.length, len(context.inputs))


def features(context: context_lib.Context | None) -> jax.Array | None:
  """Returns what the meta-network sees, float [N * C]."""
  return None if context is None else context_lib.features(context)


def look_back(
  context: context_lib.Context | None, seen: Any, config: schema.Meta
) -> context_lib.Context | None:
  """Takes the attributes of `seen` that are inputs into the context."""
  if context is None:
    return None
  statistics = [getattr(seen, name) for name in config.context.inputs]
  return context_lib.append(
    context, jnp.stack(statistics), config.context.decay
  )


def make_meta_optimizer(config: schema.Meta) -> optax.GradientTransformation:
  """Returns Adam; the paper clips no meta-gradient here."""
  return optax.adam(
    config.learning_rate, config.beta1, config.beta2, config.epsilon
  )
