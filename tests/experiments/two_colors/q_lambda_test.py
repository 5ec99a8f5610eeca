import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import enable_x64

from bmg import engine
from bmg.configs.schema.meta import Context
from bmg.configs.two_colors import schema
from bmg.experiments.two_colors import agent as agent_lib
from bmg.experiments.two_colors import environment, q_lambda

_WORLD = schema.Environment(switch_interval=40)


def _config(**fields):
  meta = fields.pop('meta', schema.Meta(fixed=0.3, bootstrap_length=5))
  return schema.Agent(
    kind='q_lambda', hidden=(8,), meta=meta, **{'learning_rate': 1e-3, **fields}
  )


def _bmg(length=5, **meta):
  return _config(
    meta=schema.Meta(
      mode='bmg', inner_updates=0, bootstrap_length=length, **meta
    )
  )


def test_traces_sum_to_pengs_lambda_returns(monkeypatch):
  """With frozen values, the updates of a stream are those of the forward view.

  Peng's return is G_t = r_t + discount ((1 - lambda) V_{t+1} + lambda G_{t+1}),
  and G = V after the last step.
  """
  rate, num_steps = 1e-9, 30
  monkeypatch.setattr(q_lambda, 'make_optimizer', lambda _: optax.sgd(rate))
  with enable_x64():
    config = _config(discount=0.9, trace_lambda=0.8)
    agent = q_lambda.make_agent(config, _WORLD)
    network = q_lambda.make_network(config)
    update = jax.jit(
      q_lambda.make_update(
        config, _WORLD, network.apply, lambda meta_params, context: 0.3
      )
    )
    state = agent.init(jax.random.PRNGKey(0)).agent
    start = state.params
    steps = []
    for _ in range(num_steps):
      cell = state.opt_state.environment
      state, info = update(state, None, None)
      following = state.opt_state.environment
      steps.append((cell, following, info.action, float(info.reward)))
    total = jax.tree.map(lambda x, y: (y - x) / rate, start, state.params)

    expected = jax.tree.map(jnp.zeros_like, start)
    values = lambda cell: network.apply(start, environment.observe(cell))
    target = float(values(steps[-1][1]).max())
    for cell, following, action, reward in reversed(steps):
      next_value = float(values(following).max())
      target = reward + 0.9 * (0.2 * next_value + 0.8 * target)
      value, gradient = jax.value_and_grad(
        lambda params, cell=cell, action=action: network.apply(
          params, environment.observe(cell)
        )[action]
      )(start)
      expected = jax.tree.map(
        lambda x, g, e=target - value: x + e * g, expected, gradient
      )
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4),
      expected,
      total,
    )


def _epsilon_gradient(epsilons, agree):
  """d/d logit of mean -log(chance of the target's action), by hand."""
  grads = []
  for epsilon, same in zip(epsilons, agree, strict=True):
    slope = epsilon * (1 - epsilon)
    if same:
      grads.append(0.75 / (1 - 0.75 * epsilon) * slope)
    else:
      grads.append(-slope / epsilon)
  return np.mean(grads)


@pytest.mark.parametrize('share', [0.0, 0.25, 1.0])
@pytest.mark.parametrize('num_states', [4, 132])
def test_epsilon_loss_has_its_closed_form(share, num_states):
  """On Q-functions that are a table of one state each."""
  observations = jnp.tile(jnp.eye(4), (num_states // 4, 1))
  agree = np.arange(4) >= 4 * share
  student = jnp.eye(4)
  # Where they differ, the target prefers the next action.
  target = jnp.where(agree[:, None], student, jnp.roll(student, 1, axis=1))
  values = lambda params, observation: observation @ params
  info = q_lambda.StepInfo(observations, *[None] * 5)
  bootstrap = engine.TargetBootstrap(
    lambda params: (),
    lambda agent, meta_params, state, data: engine.Target(
      (target, info), agent, [], state
    ),
  )
  loss = q_lambda.epsilon_loss(
    bootstrap, values, lambda meta_params, context: jax.nn.sigmoid(meta_params)
  )
  agent = engine.AgentState(student, ())
  data = engine.MetaData([], [], None)

  def value(logit):
    return loss.apply(agent, agent, logit, (), data)[0]

  logit = jnp.float32(-0.4)
  epsilon = float(jax.nn.sigmoid(logit))
  expected = np.mean(
    [-np.log(1 - 0.75 * epsilon if same else epsilon / 4) for same in agree]
  )
  assert float(value(logit)) == pytest.approx(expected, rel=1e-5)
  assert float(jax.grad(value)(logit)) == pytest.approx(
    _epsilon_gradient([epsilon] * 4, agree), rel=1e-5
  )


def test_epsilon_of_each_step_depends_on_its_context():
  config = _bmg(6, context=Context(inputs=('reward',), length=3, hidden=(4,)))
  agent = q_lambda.make_agent(config, _WORLD)
  state = jax.jit(agent.init)(jax.random.PRNGKey(0))
  # The last layer begins at zero: give it something to say.
  meta_params = jax.tree.map(lambda x: x + 0.5, state.meta.params)
  network = q_lambda.make_network(config)
  logits = agent_lib.make_logits('epsilon', config.meta)
  epsilon = q_lambda.make_epsilon(config.meta, logits)
  update = q_lambda.make_update(config, _WORLD, network.apply, epsilon)
  _, info = jax.jit(engine.repeated(update, 6))(state.agent, meta_params, None)
  assert len(set(np.asarray(info.epsilon).tolist())) > 1
  for context, expected in zip(info.context, info.epsilon, strict=True):
    assert float(epsilon(meta_params, context)) == pytest.approx(
      float(expected), rel=1e-5
    )


def test_meta_step_makes_the_agents_own_updates_and_no_others():
  config = _bmg(5)
  agent = q_lambda.make_agent(config, _WORLD)
  state = jax.jit(agent.init)(jax.random.PRNGKey(0))
  network = q_lambda.make_network(config)
  epsilon = q_lambda.make_epsilon(
    config.meta, agent_lib.make_logits('epsilon', config.meta)
  )
  update = q_lambda.make_update(config, _WORLD, network.apply, epsilon)
  expected, _ = engine.apply_updates(
    update, state.agent, state.meta.params, [None] * 5
  )
  after, metrics = jax.jit(agent.step)(state)
  assert int(after.agent.opt_state.environment.time) == 5
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
    expected.params,
    after.agent.params,
  )
  assert float(metrics['epsilon']) == pytest.approx(0.5)
  assert float(metrics['meta_gradient']) > 0


def test_greedy_agent_is_greedy():
  config = _config(meta=schema.Meta(fixed=0.0, bootstrap_length=20))
  network = q_lambda.make_network(config)
  values = lambda params, observation: network.apply(params, observation)
  agent = q_lambda.make_agent(config, _WORLD)
  state = jax.jit(agent.init)(jax.random.PRNGKey(0)).agent
  update = jax.jit(
    q_lambda.make_update(config, _WORLD, values, lambda *_: jnp.float32(0.0))
  )
  for _ in range(10):
    cell = state.opt_state.environment
    best = int(values(state.params, environment.observe(cell)).argmax())
    state, _ = update(state, None, None)
    expected, _ = environment.step(
      _WORLD, cell, jnp.int32(best), jax.random.PRNGKey(0)
    )
    assert int(state.opt_state.environment.agent) == int(expected.agent)
