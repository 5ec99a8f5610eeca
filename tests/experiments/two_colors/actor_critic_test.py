import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from bmg import engine
from bmg.agents import losses
from bmg.configs.schema.meta import Context
from bmg.configs.two_colors import schema
from bmg.experiments.two_colors import actor_critic, environment

_WORLD = schema.Environment(switch_interval=40)


def _config(**meta):
  return schema.Agent(
    hidden=(8,), rollout_length=6, meta=schema.Meta(**{'fixed': 0.1, **meta})
  )


def _bmg(inner_updates=1, bootstrap_length=1, **meta):
  return _config(
    mode='bmg',
    inner_updates=inner_updates,
    bootstrap_length=bootstrap_length,
    **{'fixed': 0.0, **meta},
  )


def _begin(config, seed=0):
  agent = actor_critic.make_agent(config, _WORLD)
  return agent, jax.jit(agent.init)(jax.random.PRNGKey(seed))


def _written_out_loss(params, network, rollout, config, entropy_weight):
  """The paper's appendix B with lambda-returns, which are constant."""
  logits, values = network(params, rollout.observations)
  frozen = jax.lax.stop_gradient(values)
  returns, estimates = [frozen[-1]], []
  for reward, next_value in zip(
    rollout.rewards[::-1], frozen[:0:-1], strict=True
  ):
    # Of taking the action, then of what follows it.
    estimates.insert(0, reward + config.discount * returns[0])
    mixed = config.return_lambda * returns[0]
    mixed += (1.0 - config.return_lambda) * next_value
    returns.insert(0, reward + config.discount * mixed)
  targets, estimates = jnp.stack(returns[:-1]), jnp.stack(estimates)
  log_probs = jax.nn.log_softmax(logits[:-1])
  chosen = log_probs[jnp.arange(len(targets)), rollout.actions]
  advantages = estimates - frozen[:-1]
  entropies = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=1)
  return jnp.mean(
    -chosen * advantages
    + 0.5 * (targets - values[:-1]) ** 2
    - entropy_weight * entropies
  )


@pytest.mark.parametrize('return_lambda', [0.0, 0.6, 1.0])
def test_update_is_sgd_on_the_loss(return_lambda):
  config = dataclasses.replace(_config(), return_lambda=return_lambda)
  agent, state = _begin(config)
  parts = actor_critic.make_parts(config, _WORLD)
  rollout = state.agent.opt_state.rollout
  gradient = jax.grad(_written_out_loss)(
    state.agent.params, parts.network, rollout, config, 0.1
  )
  after, metrics = jax.jit(agent.step)(state)
  jax.tree.map(
    lambda x, g, y: np.testing.assert_allclose(y, x - 0.1 * g, atol=1e-6),
    state.agent.params,
    gradient,
    after.agent.params,
  )
  assert float(metrics['reward']) == pytest.approx(
    float(rollout.rewards.mean())
  )
  assert float(metrics['entropy_weight']) == pytest.approx(0.1)


@pytest.mark.parametrize(
  'config',
  [
    _config(),
    _config(mode='mg', inner_updates=2),
    _bmg(1, 1),
    _bmg(2, 3),
    _bmg(1, 4, context=Context(inputs=('reward',), length=2)),
  ],
)
def test_no_step_is_lost_or_made_twice(config):
  agent, state = _begin(config)
  before = state.agent.opt_state
  after = jax.jit(agent.step)(state)[0].agent.opt_state
  # One rollout is always ahead of the updates.
  assert int(before.environment.time) == config.rollout_length
  assert int(after.environment.time - before.environment.time) == (
    agent.num_steps
  )
  np.testing.assert_array_equal(
    after.rollout.observations[-1], environment.observe(after.environment)
  )


def test_rollout_follows_the_rules():
  agent, state = _begin(_config())
  first = state.agent.opt_state.rollout
  second = jax.jit(agent.step)(state)[0].agent.opt_state.rollout
  np.testing.assert_array_equal(first.observations[-1], second.observations[0])
  # Columns and rows of the agent in successive observations differ by the move.
  places = np.asarray(second.observations).reshape(-1, 3, 2, 5).argmax(-1)
  moves = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])
  expected = np.clip(places[:-1, 0] + moves[second.actions], 0, 4)
  np.testing.assert_array_equal(places[1:, 0], expected)


def test_agent_goes_on_from_the_targets_learned_updates():
  config = _bmg(1, 3, initial=0.3)
  agent, state = _begin(config)
  parts = actor_critic.make_parts(config, _WORLD)
  expected, _ = engine.apply_updates(
    jax.jit(parts.update), state.agent, state.meta.params, [None] * 3
  )
  after = jax.jit(agent.step)(state)[0].agent
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
    expected.params,
    after.params,
  )


def _central_difference(function, meta_params, step=1e-5):
  value = lambda shift: function(
    {'entropy_weight': meta_params['entropy_weight'] + shift}
  )
  return (value(step) - value(-step)) / (2 * step)


@pytest.mark.parametrize('inner_updates', [1, 2])
@pytest.mark.parametrize('length', [1, 3])
def test_bmg_meta_gradient_against_central_differences(inner_updates, length):
  with enable_x64():
    config = _bmg(inner_updates, length)
    agent, state = _begin(config, seed=3)
    parts = actor_critic.make_parts(config, _WORLD)
    inner = [None] * inner_updates
    update = jax.jit(parts.update)

    # The target, with the last update written out: entropy weight 0, on the
    # rollout that nothing has learned from yet.
    run = lambda updates: engine.apply_updates(
      update, state.agent, state.meta.params, [None] * updates
    )[0]
    last = run(inner_updates + length - 1)
    rollout = last.opt_state.rollout
    gradient = jax.grad(_written_out_loss)(
      last.params, parts.network, rollout, config, 0.0
    )
    target = jax.tree.map(lambda x, g: x - 0.1 * g, last.params, gradient)
    target_logits = parts.network(target, rollout.observations[:-1]).logits

    @jax.jit
    def distance(meta_params):
      final, _ = engine.apply_updates(
        parts.update, state.agent, meta_params, inner
      )
      logits = parts.network(final.params, rollout.observations[:-1]).logits
      return jnp.mean(losses.kl_divergence(target_logits, logits))

    learner_state = jax.jit(agent.step)(state)
    expected = _central_difference(distance, state.meta.params)
    assert abs(expected) > 1e-9
    assert float(learner_state[1]['meta_gradient']) == pytest.approx(
      abs(float(expected)), rel=1e-4
    )


@pytest.mark.parametrize('inner_updates', [1, 2])
def test_mg_meta_gradient_against_central_differences(inner_updates):
  with enable_x64():
    config = _config(mode='mg', inner_updates=inner_updates, fixed=0.2)
    agent, state = _begin(config, seed=3)
    parts = actor_critic.make_parts(config, _WORLD)

    @jax.jit
    def final_gradient_and_params(meta_params):
      final, _ = engine.apply_updates(
        parts.update, state.agent, meta_params, [None] * inner_updates
      )
      return final

    final = final_gradient_and_params(state.meta.params)
    # The outer loss is judged by its (policy) gradient, which is constant here.
    gradient = jax.grad(_written_out_loss)(
      final.params, parts.network, final.opt_state.rollout, config, 0.2
    )

    def linearized(meta_params):
      params = final_gradient_and_params(meta_params).params
      products = jax.tree.map(lambda g, x: jnp.sum(g * x), gradient, params)
      return sum(jax.tree.leaves(products))

    expected = _central_difference(linearized, state.meta.params)
    metrics = jax.jit(agent.step)(state)[1]
    assert float(metrics['meta_gradient']) == pytest.approx(
      abs(float(expected)), rel=1e-4
    )


def test_context_holds_the_mean_rewards_of_the_last_rollouts():
  config = _bmg(1, 1, context=Context(inputs=('reward',), length=3))
  agent, state = _begin(config)
  step = jax.jit(agent.step)
  rewards = []
  for _ in range(4):
    rewards.append(float(state.agent.opt_state.rollout.rewards.mean()))
    state, _ = step(state)
  history = state.agent.opt_state.context.history[:, 0]
  np.testing.assert_allclose(history, rewards[-3:], rtol=1e-6)


def test_meta_learning_begins_at_the_initial_weight():
  for context in (Context(), Context(inputs=('reward', 'td_error', 'value'))):
    agent, state = _begin(_bmg(1, 2, initial=0.3, context=context))
    _, metrics = jax.jit(agent.step)(state)
    assert float(metrics['entropy_weight']) == pytest.approx(0.3, abs=1e-6)


def test_initial_weights_have_the_variance_that_was_asked_for():
  config = dataclasses.replace(_config(), hidden=(400,), initial_scale=0.25)
  params = actor_critic.initial_params(config, jax.random.PRNGKey(0))
  for name in ('policy', 'value'):
    weights = params[f'{name}/~/linear_0']['w']
    assert float(weights.var()) * len(weights) == pytest.approx(0.25, rel=0.1)


def test_learns_to_collect_the_good_item():
  world = schema.Environment(switch_interval=10**9)
  config = dataclasses.replace(_config(), hidden=(64,), rollout_length=16)
  agent = actor_critic.make_agent(config, world)

  @jax.jit
  def run(key):
    state = agent.init(key)
    rewards = jax.lax.scan(
      lambda state, _: agent.step(state), state, length=4000
    )[1]['reward']
    return rewards[:200].mean(), rewards[-200:].mean()

  first, last = run(jax.random.PRNGKey(0))
  # A random policy has -0.038, the best one 0.27.
  assert float(first) < 0.05
  assert float(last) > 0.15
