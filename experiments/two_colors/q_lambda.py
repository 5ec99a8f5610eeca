"""Peng's Q(lambda) on two colors, whose epsilon is meta-learned.

One update per step, with eligibility traces (Peng and Williams, 1996). Epsilon
only acts through the choice of actions, so that no update can be differentiated
in it: K is 0, the student is the epsilon-greedy policy itself, and the target
is the greedy policy after L more updates (Flennerhag et al., 2022, section 5.1;
Luketina et al., 2022, section 3).
"""

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
from bmg.experiments.two_colors import agent as agent_lib
from bmg.experiments.two_colors import environment

PyTree = Any

# (parameters, observations [..., 30]) -> action values [..., 4].
Values = Callable[[PyTree, jax.Array], jax.Array]
# (meta-parameters or None, context or None) -> epsilon.
Epsilon = Callable[[PyTree, jax.Array | None], jax.Array]

_EPSILON = 'epsilon'
# States whose values are computed at once. With oneDNN, XLA's older runtime
# aborts when it compiles a product of 128 rows and weights that a loop changes.
_BLOCK = 64


class LearningState(NamedTuple):
  """All that an update needs besides parameters: the paper's h."""

  optimizer: optax.OptState
  # Eligibility of each parameter.
  traces: PyTree
  environment: environment.State
  context: context_lib.Context | None
  key: jax.Array


class StepInfo(NamedTuple):
  """What one step leaves behind."""

  # float32 [30], and float [N] for the meta-network (or None).
  observation: jax.Array
  context: jax.Array | None
  action: jax.Array
  reward: jax.Array
  epsilon: jax.Array
  value: jax.Array


def make_agent(
  config: schema.Agent, world: schema.Environment
) -> agent_lib.Agent:
  """Returns the agent that `config` describes, in `world`."""
  meta = config.meta
  network = make_network(config)
  logits = agent_lib.make_logits(_EPSILON, meta)
  epsilon = make_epsilon(meta, logits)
  update = make_update(config, world, network.apply, epsilon)
  window = engine.repeated(update, meta.bootstrap_length)
  learner = engine.meta_learner(
    update,  # Of which there are K = 0.
    epsilon_loss(online_bootstrap(window), network.apply, epsilon),
    agent_lib.make_meta_optimizer(meta),
  )
  learns = meta.mode == 'bmg'

  def init(key: jax.Array) -> agent_lib.State:
    params_key, meta_key, agent_key = jax.random.split(key, 3)
    params = network.init(params_key, jnp.zeros(environment.OBSERVATION_SIZE))
    agent = engine.AgentState(params, _begin(config, params, agent_key))
    if not learns:
      return agent_lib.State(agent, None)
    return agent_lib.State(agent, learner.init(logits.init(meta_key), params))

  def step(state: agent_lib.State) -> tuple[agent_lib.State, agent_lib.Metrics]:
    if state.meta is None:
      agent, info = window(state.agent, None, None)
      return agent_lib.State(agent, None), _metrics(info)
    data = engine.MetaData(inner=[], bootstrap=[], final=None)
    output = learner.step(state.agent, state.meta, data)
    metrics = _metrics(output.agent_aux[0])
    metrics['meta_gradient'] = optax.global_norm(output.meta_gradient)
    return agent_lib.State(output.agent, output.meta), metrics

  return agent_lib.Agent(init, step, meta.bootstrap_length)


def make_network(config: schema.Agent) -> hk.Transformed:
  """Returns Q, from observations [..., 30] to action values [..., 4]."""

  def forward(observations: jax.Array) -> jax.Array:
    return agent_lib.make_mlp(config, environment.NUM_ACTIONS, 'mlp')(
      observations
    )

  return hk.without_apply_rng(hk.transform(forward))


def make_epsilon(
  config: schema.Meta, logits: meta_parameters.Logits
) -> Epsilon:
  """Returns epsilon as a function of meta-parameters (None: fixed), context."""

  def epsilon(meta_params: PyTree, context: jax.Array | None) -> jax.Array:
    if meta_params is None:
      return jnp.asarray(config.fixed)
    return jax.nn.sigmoid(logits.apply(meta_params, context)[_EPSILON][0])

  return epsilon


def make_update(
  config: schema.Agent,
  world: schema.Environment,
  values: Values,
  epsilon: Epsilon,
) -> engine.UpdateRule:
  """Returns the rule that makes one step in the world and learns from it.

  With V(s) = max_a Q(s, a), and traces z that are 0 at the beginning,

    z <- discount * lambda * z + grad Q(s, a)
    x <- x + Adam(z * (r + discount * V(s') - V(s))
                  + grad Q(s, a) * (V(s) - Q(s, a))).

  That is: states visited before learn from the error of V(s), and (s, a) from
  that of Q(s, a). Traces are not cut where the agent explores: that is Peng's
  variant.

  Args:
    config: of the agent.
    world: the rules of the grid.
    values: Q as a function of parameters and an observation.
    epsilon: as a function of meta-parameters and context.
  """
  optimizer = make_optimizer(config)

  def update(
    state: engine.AgentState, meta_params: PyTree, batch: PyTree
  ) -> tuple[engine.AgentState, StepInfo]:
    del batch
    params, learning = state.params, state.opt_state
    key, action_key, world_key = jax.random.split(learning.key, 3)
    context = agent_lib.features(learning.context)
    current_epsilon = epsilon(meta_params, context)
    observation = environment.observe(learning.environment)

    def chosen_value(params: PyTree) -> tuple[jax.Array, tuple[jax.Array, ...]]:
      action_values = values(params, observation)
      action = _epsilon_greedy(action_key, action_values, current_epsilon)
      return action_values[action], (action, jnp.max(action_values))

    (chosen, (action, value)), gradient = jax.value_and_grad(
      chosen_value, has_aux=True
    )(params)
    next_state, reward = environment.step(
      world, learning.environment, action, world_key
    )
    next_observation = environment.observe(next_state)
    next_value = jnp.max(values(params, next_observation))
    error = reward + config.discount * next_value - value
    decay = config.discount * config.trace_lambda
    # In this order, XLA renews the traces in place.
    traces = jax.tree.map(lambda z, g: decay * z + g, learning.traces, gradient)
    # XLA renews parameters in place, too, if no one can still read them then.
    error = _after(gradient, error)
    # Optax descends.
    direction = jax.tree.map(
      lambda z, g: -(z * error + g * (value - chosen)),
      traces,
      gradient,
    )
    steps, opt_state = optimizer.update(direction, learning.optimizer, params)
    info = StepInfo(
      observation, context, action, reward, current_epsilon, value
    )
    learning = LearningState(
      optimizer=opt_state,
      traces=traces,
      environment=next_state,
      context=agent_lib.look_back(learning.context, info, config.meta),
      key=key,
    )
    return (
      engine.AgentState(optax.apply_updates(params, steps), learning),
      info,
    )

  return update


def make_optimizer(config: schema.Agent) -> optax.GradientTransformation:
  """Returns Adam, as in the paper's appendix B."""
  return optax.adam(
    config.learning_rate, config.beta1, config.beta2, config.epsilon
  )


def online_bootstrap(window: engine.UpdateRule) -> engine.TargetBootstrap:
  """Returns a target that is the agent itself after its next L updates.

  Its parameters come with the `StepInfo` [L] of the steps in between: the
  states to match in.
  """

  def make(
    agent: engine.AgentState,
    meta_params: PyTree,
    state: PyTree,
    data: engine.MetaData,
  ) -> engine.Target:
    del data
    agent, info = window(agent, meta_params, None)
    return engine.Target((agent.params, info), agent, [info], state)

  return engine.TargetBootstrap(lambda params: (), make)


def epsilon_loss(
  bootstrap: engine.TargetBootstrap,
  values: Values,
  epsilon: Epsilon,
) -> engine.OuterLoss:
  """Returns the mean KL(greedy target policy || epsilon-greedy policy).

  Per state that is -log of the probability that the epsilon-greedy policy
  gives to the target's greedy action: 1 - epsilon + epsilon / A where both
  agree on it, epsilon / A where learning has changed it.
  """

  def greedy_actions(params: PyTree, observations: jax.Array) -> jax.Array:
    return jax.lax.map(
      lambda observation: jnp.argmax(values(params, observation)),
      observations,
      batch_size=_BLOCK,
    )

  def apply(
    start: engine.AgentState,
    final: engine.AgentState,
    meta_params: PyTree,
    state: PyTree,
    data: engine.MetaData,
  ) -> tuple[jax.Array, engine.OuterResult]:
    del start
    target = engine.constant_target(bootstrap, final, meta_params, state, data)
    target_params, info = target.params
    actions = greedy_actions(final.params, info.observation)
    target_actions = greedy_actions(target_params, info.observation)
    epsilons = jax.vmap(lambda each: epsilon(meta_params, each.context))(info)
    greedy = jnp.where(actions == target_actions, 1.0 - epsilons, 0.0)
    chances = greedy + epsilons / environment.NUM_ACTIONS
    loss = -jnp.mean(jnp.log(chances))
    return loss, engine.OuterResult(
      target.agent, target.agent_aux, target.state, None
    )

  return engine.OuterLoss(bootstrap.init, apply)


def _begin(
  config: schema.Agent, params: PyTree, key: jax.Array
) -> LearningState:
  environment_key, key = jax.random.split(key)
  return LearningState(
    optimizer=make_optimizer(config).init(params),
    traces=jax.tree.map(jnp.zeros_like, params),
    environment=environment.reset(environment_key),
    context=agent_lib.empty_context(config.meta),
    key=key,
  )


def _after(tree: PyTree, value: jax.Array) -> jax.Array:
  """Returns `value`, as if computing it took all leaves of `tree`."""
  firsts = [leaf.ravel()[0] for leaf in jax.tree.leaves(tree)]
  return value + 0.0 * sum(firsts)


def _epsilon_greedy(
  key: jax.Array, action_values: jax.Array, epsilon: jax.Array
) -> jax.Array:
  explore_key, action_key = jax.random.split(key)
  random_action = jax.random.randint(action_key, (), 0, environment.NUM_ACTIONS)
  explores = jax.random.uniform(explore_key) < epsilon
  return jnp.where(explores, random_action, jnp.argmax(action_values))


def _metrics(info: StepInfo) -> agent_lib.Metrics:
  return {
    agent_lib.REWARD: jnp.mean(info.reward),
    _EPSILON: jnp.mean(info.epsilon),
    'value': jnp.mean(info.value),
  }
