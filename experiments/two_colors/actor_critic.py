"""The actor-critic of two colors, whose entropy weight is meta-learned.

A2C with n-step returns on rollouts of one environment. The environment is a
part of what an update rule moves: an update learns from the rollout that was
made with the current parameters, then makes the next one. So all data is
on-policy, and nothing is thrown away but the update that ends a target
(Flennerhag et al., 2022, section 5.1 and appendix B).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from bmg import engine
from bmg.agents import context as context_lib
from bmg.agents import losses, types
from bmg.configs import schema as atari_schema
from bmg.configs.two_colors import schema
from bmg.engine import optimizers
from bmg.experiments.two_colors import agent as agent_lib
from bmg.experiments.two_colors import environment

PyTree = Any

# n-step returns on a whole rollout; averaged, as in the paper's appendix B.
_LOSS = atari_schema.Loss(
  returns='lambda', trust_region=0.0, reduction='mean', half_value_loss=True
)
_ENTROPY_WEIGHT = 'entropy_weight'


class Rollout(NamedTuple):
  """T steps on end."""

  # float32 [T + 1, 30], int32 [T], float32 [T].
  observations: jax.Array
  actions: jax.Array
  rewards: jax.Array


class LearningState(NamedTuple):
  """All that an update needs besides parameters: the paper's h."""

  optimizer: optax.OptState
  environment: environment.State
  # Made with the current parameters, and not learned from yet.
  rollout: Rollout
  context: context_lib.Context | None
  key: jax.Array


class Batch(NamedTuple):
  """What one gradient is taken on."""

  rollout: Rollout
  # float [N * C] for the meta-network, or None.
  context: jax.Array | None


class UpdateInfo(NamedTuple):
  """What is logged of an update; scalars."""

  reward: jax.Array
  entropy_weight: jax.Array
  entropy: jax.Array
  td_error: jax.Array
  value: jax.Array


class Parts(NamedTuple):
  """The functions that the engine combines."""

  # engine.Loss; meta-parameters None: the fixed entropy weight.
  loss: engine.Loss
  # The rule that learns and acts on, and the plain one, which only learns.
  update: engine.UpdateRule
  plain_update: engine.UpdateRule
  # (parameters, random key) -> state.
  begin: Callable[[types.Params, jax.Array], engine.AgentState]
  # (parameters, observations [N, 30]) -> HeadOutput of N states.
  network: Callable[[types.Params, jax.Array], types.HeadOutput]


def make_agent(
  config: schema.Agent, world: schema.Environment
) -> agent_lib.Agent:
  """Returns the agent that `config` describes, in `world`."""
  meta = config.meta
  parts = make_parts(config, world)
  logits = agent_lib.make_logits(_ENTROPY_WEIGHT, meta)
  learns = meta.mode != 'none'
  learner = engine.meta_learner(
    parts.update,
    _bootstrapped_loss(config, parts)
    if meta.mode == 'bmg'
    else _direct_loss(parts),
    agent_lib.make_meta_optimizer(meta),
  )
  own_updates = meta.inner_updates if learns else 1
  extra_updates = meta.bootstrap_length - 1 if meta.mode == 'bmg' else 0
  # Everything that updates need is in the state: there is no other data.
  data = engine.MetaData(
    [None] * own_updates, [None] if extra_updates else [], None
  )

  def init(key: jax.Array) -> agent_lib.State:
    params_key, meta_key, agent_key = jax.random.split(key, 3)
    params = initial_params(config, params_key)
    meta_params = logits.init(meta_key)
    return agent_lib.State(
      parts.begin(params, agent_key),
      learner.init(meta_params, params) if learns else None,
    )

  def step(state: agent_lib.State) -> tuple[agent_lib.State, agent_lib.Metrics]:
    if state.meta is None:
      agent, info = parts.update(state.agent, None, None)
      return agent_lib.State(agent, None), _metrics([info])
    output = learner.step(state.agent, state.meta, data)
    metrics = _metrics(output.agent_aux)
    metrics['meta_gradient'] = optax.global_norm(output.meta_gradient)
    return agent_lib.State(output.agent, output.meta), metrics

  num_updates = own_updates + extra_updates
  return agent_lib.Agent(init, step, num_updates * config.rollout_length)


def initial_params(config: schema.Agent, key: jax.Array) -> types.Params:
  """Returns initial parameters of both networks."""
  observation = jnp.zeros((1, environment.OBSERVATION_SIZE))
  return _network(config).init(key, observation)


def make_parts(config: schema.Agent, world: schema.Environment) -> Parts:
  """Returns the agent's loss and update rules."""
  network = _network(config)
  logits = agent_lib.make_logits(_ENTROPY_WEIGHT, config.meta)
  optimizer = _make_optimizer(config)

  def entropy_weight(
    meta_params: PyTree, context: jax.Array | None
  ) -> jax.Array:
    if meta_params is None:
      return jnp.asarray(config.meta.fixed)
    logit = logits.apply(meta_params, context)[_ENTROPY_WEIGHT]
    return jax.nn.sigmoid(logit[0])

  def loss(
    params: PyTree, frozen_params: PyTree, meta_params: PyTree, batch: Batch
  ) -> tuple[jax.Array, UpdateInfo]:
    weight = entropy_weight(meta_params, batch.context)
    hypers = types.Hypers(
      discount=config.discount,
      trace_lambda=config.return_lambda,
      leak=1.0,
      cut_leak=1.0,
      policy_weight=1.0,
      entropy_weight=weight,
      value_weight=config.value_weight,
    )
    # A batch of one rollout.
    rollout = jax.tree.map(lambda x: x[None], batch.rollout)
    transitions = losses.Transitions(
      rollout.actions,
      rollout.rewards,
      discounts=jnp.ones_like(rollout.rewards),
      behaviour_logits=jnp.zeros(
        (*rollout.rewards.shape, environment.NUM_ACTIONS)
      ),
      is_online=jnp.ones(1),
    )
    terms = losses.actor_critic_loss(
      network.apply(params, rollout.observations),
      network.apply(frozen_params, rollout.observations),
      transitions,
      hypers,
      _LOSS,
    )
    return terms.total, UpdateInfo(
      reward=jnp.mean(rollout.rewards),
      entropy_weight=weight,
      entropy=-terms.entropy,
      td_error=terms.td_error,
      value=terms.mean_value,
    )

  gradient_update = engine.gradient_update(
    loss, optimizer, rematerialize=config.meta.inner_updates > 1
  )

  def act(
    params: PyTree, state: environment.State, key: jax.Array
  ) -> tuple[Rollout, environment.State]:
    return _act(
      lambda observation: network.apply(params, observation).logits,
      world,
      state,
      key,
      config.rollout_length,
    )

  def learn(
    state: engine.AgentState, meta_params: PyTree
  ) -> tuple[engine.AgentState, UpdateInfo]:
    learning = state.opt_state
    batch = Batch(learning.rollout, agent_lib.features(learning.context))
    state, aux = gradient_update(
      engine.AgentState(state.params, learning.optimizer), meta_params, batch
    )
    learning = learning._replace(optimizer=state.opt_state)
    return engine.AgentState(state.params, learning), aux.loss_aux

  def update(
    state: engine.AgentState, meta_params: PyTree, batch: PyTree
  ) -> tuple[engine.AgentState, UpdateInfo]:
    del batch
    state, info = learn(state, meta_params)
    context = agent_lib.look_back(state.opt_state.context, info, config.meta)
    learning = state.opt_state
    key, rollout_key = jax.random.split(learning.key)
    # What the agent does next is data, not a function of w.
    rollout, environment_state = act(
      jax.lax.stop_gradient(state.params), learning.environment, rollout_key
    )
    learning = LearningState(
      learning.optimizer, environment_state, rollout, context, key
    )
    return engine.AgentState(state.params, learning), info

  def plain_update(
    state: engine.AgentState, meta_params: PyTree, batch: PyTree
  ) -> tuple[engine.AgentState, UpdateInfo]:
    del meta_params, batch
    return learn(state, None)

  def begin(params: PyTree, key: jax.Array) -> engine.AgentState:
    environment_key, rollout_key, key = jax.random.split(key, 3)
    rollout, environment_state = act(
      params, environment.reset(environment_key), rollout_key
    )
    context = agent_lib.empty_context(config.meta)
    learning = LearningState(
      optimizer.init(params), environment_state, rollout, context, key
    )
    return engine.AgentState(params, learning)

  return Parts(loss, update, plain_update, begin, network.apply)


def _network(config: schema.Agent) -> hk.Transformed:
  """Returns separate policy and value networks (paper, appendix B)."""

  def forward(observations: jax.Array) -> types.HeadOutput:
    policy = agent_lib.make_mlp(config, environment.NUM_ACTIONS, 'policy')
    logits = policy(observations)
    values = agent_lib.make_mlp(config, 1, 'value')(observations)
    return types.HeadOutput(logits, jnp.squeeze(values, axis=-1))

  return hk.without_apply_rng(hk.transform(forward))


def _make_optimizer(config: schema.Agent) -> optax.GradientTransformation:
  sgd = optax.sgd(config.learning_rate)
  if config.max_grad_norm == 0:
    return sgd
  return optax.chain(optimizers.clip_by_global_norm(config.max_grad_norm), sgd)


def _act(
  policy: Callable[[jax.Array], jax.Array],
  world: schema.Environment,
  state: environment.State,
  key: jax.Array,
  length: int,
) -> tuple[Rollout, environment.State]:
  """Samples `length` steps."""

  def body(
    state: environment.State, keys: tuple[jax.Array, jax.Array]
  ) -> tuple[environment.State, tuple[jax.Array, ...]]:
    action_key, world_key = keys
    observation = environment.observe(state)
    action = jax.random.categorical(action_key, policy(observation))
    state, reward = environment.step(world, state, action, world_key)
    return state, (observation, action, reward)

  keys = jax.random.split(key, 2 * length)
  state, (observations, actions, rewards) = jax.lax.scan(
    body, state, (keys[:length], keys[length:])
  )
  last = environment.observe(state)
  observations = jnp.concatenate([observations, last[None]])
  return Rollout(observations, actions, rewards), state


def _bootstrapped_loss(config: schema.Agent, parts: Parts) -> engine.OuterLoss:
  """Returns BMG's outer loss: KL(target policy || policy) in the last rollout.

  That rollout is the one that the agent makes after its L - 1 further updates:
  the target's plain update learns from it, and so does the agent next.
  """
  grounded = engine.grounded_bootstrap(
    engine.repeated(parts.update, config.meta.bootstrap_length - 1),
    parts.plain_update,
  )

  def make(
    agent: engine.AgentState,
    meta_params: PyTree,
    state: PyTree,
    data: engine.MetaData,
  ) -> engine.Target:
    target = grounded.make(agent, meta_params, state, data)
    states = target.agent.opt_state.rollout.observations[:-1]
    return target._replace(params=(target.params, states))

  def matching(
    target: tuple[PyTree, jax.Array], params: PyTree, batch: PyTree
  ) -> tuple[jax.Array, None]:
    del batch
    target_params, states = target
    divergences = losses.kl_divergence(
      parts.network(target_params, states).logits,
      parts.network(params, states).logits,
    )
    return jnp.mean(divergences), None

  return engine.bootstrapped_loss(
    engine.TargetBootstrap(grounded.init, make), matching, keep_updates=True
  )


def _direct_loss(parts: Parts) -> engine.OuterLoss:
  """Returns the outer loss of standard meta-gradients.

  The actor-critic loss with the fixed entropy weight, on the rollout that the
  agent has made after its K updates.
  """

  def apply(
    start: engine.AgentState,
    final: engine.AgentState,
    meta_params: PyTree,
    state: PyTree,
    data: engine.MetaData,
  ) -> tuple[jax.Array, engine.OuterResult]:
    del start, meta_params, data
    learning = final.opt_state
    batch = Batch(learning.rollout, agent_lib.features(learning.context))
    constants = jax.lax.stop_gradient((final.params, batch))
    value, _ = parts.loss(final.params, constants[0], None, constants[1])
    return value, engine.OuterResult(final, [], state, None)

  return engine.OuterLoss(lambda params: (), apply)


def _metrics(infos: Sequence[UpdateInfo]) -> agent_lib.Metrics:
  """Means over updates; a scan has stacked some of them."""
  stacked = jax.tree.map(
    lambda *each: jnp.concatenate([jnp.atleast_1d(x) for x in each]), *infos
  )
  return {
    agent_lib.REWARD: jnp.mean(stacked.reward),
    _ENTROPY_WEIGHT: jnp.mean(stacked.entropy_weight),
    'entropy': jnp.mean(stacked.entropy),
    'value': jnp.mean(stacked.value),
  }
