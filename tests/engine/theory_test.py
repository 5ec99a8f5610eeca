"""The theory of Flennerhag et al. (2022), section 4, on quadratics in float64.

Notation: x = x^(K)(w) is the student, g = grad f(x), J = dx/dw, and
P = J J^T is the paper's G^T. A meta-step of rate beta moves w by -beta J^T u,
where u is the gradient of the outer loss in x: g itself for MG, the gradient of
mu(target, .) for BMG. The objective then changes by

    f(x(w')) - f(x(w)) = -beta g^T P u + O(beta^2).

Predictions below are made of g, J and u alone, from a second implementation of
the updates, differentiated in forward mode.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import enable_x64

from bmg import engine

_RATE = 0.1  # Of the inner updates.
_SIZE, _META_SIZE = 4, 3  # P has less than full rank.


@pytest.fixture(autouse=True)
def _float64():
  with enable_x64():
    yield


class Problem(NamedTuple):
  """f(x) = (x - centre)^T A (x - centre) / 2, and where learning stands."""

  curvature: jax.Array
  centre: jax.Array
  # How w enters the update rule, [_SIZE, _META_SIZE].
  mixing: jax.Array
  start: jax.Array
  meta_params: jax.Array

  def f(self, x):
    return 0.5 * (x - self.centre) @ self.curvature @ (x - self.centre)

  def gradient(self, x):
    return self.curvature @ (x - self.centre)

  def objective(self, params, frozen_params, meta_params, batch):
    del frozen_params, meta_params, batch
    return self.f(params), None


def _problem(seed):
  rng = np.random.default_rng(seed)
  root = rng.normal(size=(_SIZE, _SIZE))
  return Problem(
    jnp.asarray(root @ root.T / _SIZE + 0.3 * np.eye(_SIZE)),
    jnp.asarray(rng.normal(size=_SIZE)),
    jnp.asarray(rng.normal(size=(_SIZE, _META_SIZE))),
    jnp.asarray(rng.normal(size=_SIZE)),
    jnp.asarray(rng.normal(size=_META_SIZE)),
  )


# Directions of descent d(x, w); a rule makes the step -_RATE d. The first mixes
# w into one learning rate per coordinate, the second adds a linear map of it.
def _learning_rates(problem, x, w):
  return jnp.exp(problem.mixing @ w / 2) * problem.gradient(x)


def _linear_map(problem, x, w):
  return problem.gradient(x) + problem.mixing @ w


_DIRECTIONS = {'learning_rates': _learning_rates, 'linear_map': _linear_map}
_every_rule = pytest.mark.parametrize('rule', list(_DIRECTIONS))
_every_k = pytest.mark.parametrize('num_updates', [1, 2])


def _engine_update(problem, direction):
  """The rule for the engine: a loss whose gradient is the direction."""

  def loss(params, frozen_params, meta_params, batch):
    del batch
    return params @ direction(problem, frozen_params, meta_params), None

  return engine.gradient_update(loss, optax.sgd(_RATE))


def _student(problem, direction, x, w, num_updates):
  """The same, written again without the engine."""
  for _ in range(num_updates):
    x = x - _RATE * direction(problem, x, w)
  return x


class Geometry(NamedTuple):
  """What the predictions are made of: x, g and P g."""

  student: jax.Array
  g: jax.Array
  pg: jax.Array


def _geometry(problem, direction, num_updates):
  student = lambda w: _student(
    problem, direction, problem.start, w, num_updates
  )
  x = student(problem.meta_params)
  jacobian = jax.jacfwd(student)(problem.meta_params)
  g = problem.gradient(x)
  return Geometry(x, g, jacobian @ (jacobian.T @ g))


def _change_of_f(
  problem, direction, outer_loss, num_updates, bootstrap_length=1
) -> Callable[[float], float]:
  """Returns beta -> f(x(w')) - f(x(w)), with w' from the engine's meta-step."""
  update = _engine_update(problem, direction)
  agent = engine.AgentState(problem.start, optax.sgd(_RATE).init(problem.start))
  # Noise-free: every batch is empty.
  inner = [()] * num_updates
  data = engine.MetaData(inner, [()] * (bootstrap_length - 1), ())

  @jax.jit
  def change(beta):
    learner = engine.meta_learner(update, outer_loss, optax.sgd(beta))
    meta = learner.init(problem.meta_params, problem.start)
    output = learner.step(agent, meta, data)
    after, _ = engine.apply_updates(update, agent, output.meta.params, inner)
    return problem.f(after.params) - problem.f(output.agent.params)

  return lambda beta: float(change(beta))


def _assert_predicted(change, prediction):
  """Asserts change(beta) = prediction(beta) + O(beta^2), neither of them 0."""
  betas = np.array([1e-3, 1e-4, 1e-5])
  changes = np.array([change(beta) for beta in betas])
  predictions = np.array([prediction(beta) for beta in betas])
  np.testing.assert_allclose(changes[-1] / predictions[-1], 1.0, atol=1e-2)
  remainders = np.abs(changes - predictions)
  # A tenth of beta leaves a hundredth of the remainder; of a wrong prediction
  # it leaves a tenth. Below 1e-13 there is only rounding.
  assert np.all(remainders[1:] < remainders[:-1] / 50 + 1e-13), remainders


# Matching functions mu(target, x), and how they scale for targets nearby:
# mu(x + t d, x) ~ t^degree.
_READOUT = np.random.default_rng(0).normal(size=(5, _SIZE))


def _squared_l2(target, x):
  return jnp.sum((target - x) ** 2)


def _l2(target, x):
  return jnp.sqrt(_squared_l2(target, x))


def _kl(target, x):
  """KL of categorical distributions whose logits are linear in x."""
  logits = [jax.nn.log_softmax(_READOUT @ each) for each in (target, x)]
  return jnp.sum(jnp.exp(logits[0]) * (logits[0] - logits[1]))


_MATCHING = {'squared_l2': (_squared_l2, 2), 'l2': (_l2, 1), 'kl': (_kl, 2)}
_every_matching = pytest.mark.parametrize('matching', list(_MATCHING))


def _bmg_loss(bootstrap, distance):
  return engine.bootstrapped_loss(
    bootstrap, lambda target, params, batch: (distance(target, params), None)
  )


def _displaced(displacement):
  """A bootstrap with the target x + displacement, for a given vector."""

  def make(agent, meta_params, state, data):
    del meta_params, data
    return engine.Target(agent.params + displacement, agent, [], state)

  return engine.TargetBootstrap(lambda params: (), make)


@_every_rule
@_every_k
@pytest.mark.parametrize('seed', range(3))
def test_lemma_1_rate_of_meta_gradients(rule, num_updates, seed):
  problem, direction = _problem(seed), _DIRECTIONS[rule]
  geometry = _geometry(problem, direction, num_updates)
  change = _change_of_f(
    problem, direction, engine.direct_loss(problem.objective), num_updates
  )
  slope = -geometry.g @ geometry.pg
  assert slope < 0  # Descent: P is positive semi-definite.
  _assert_predicted(change, lambda beta: slope * beta)


def _grounded(problem, direction, target_rate):
  plain = engine.gradient_update(problem.objective, optax.sgd(target_rate))
  return engine.grounded_bootstrap(_engine_update(problem, direction), plain)


def _grounded_target(problem, direction, x, num_learned, target_rate):
  x = _student(problem, direction, x, problem.meta_params, num_learned)
  return x - target_rate * problem.gradient(x)


@_every_rule
@_every_k
@_every_matching
@pytest.mark.parametrize('bootstrap_length', [1, 3])
def test_theorem_1_change_under_a_target(
  rule, num_updates, matching, bootstrap_length
):
  problem, direction = _problem(1), _DIRECTIONS[rule]
  distance, _ = _MATCHING[matching]
  geometry = _geometry(problem, direction, num_updates)
  x, pg = geometry.student, geometry.pg
  target = _grounded_target(
    problem, direction, x, bootstrap_length - 1, target_rate=0.5
  )
  change = _change_of_f(
    problem,
    direction,
    _bmg_loss(_grounded(problem, direction, target_rate=0.5), distance),
    num_updates,
    bootstrap_length,
  )
  # The limit of the theorem's difference quotient in alpha is exact.
  slope = -pg @ jax.grad(distance, 1)(target, x)
  _assert_predicted(change, lambda beta: slope * beta)

  # The theorem itself, with alpha = beta: it leaves O(beta (alpha + beta)).
  _assert_predicted(
    change,
    lambda alpha: distance(target, x - alpha * pg) - distance(target, x),
  )


@_every_rule
@_every_k
@_every_matching
def test_theorem_1_target_along_the_descent_direction(
  rule, num_updates, matching
):
  # target = x - alpha P g. Then g^T P u = (x - target)^T u / alpha, which is
  # degree * mu(target, x) / alpha for a mu that is homogeneous in target - x
  # (Euler), and so for any smooth divergence, with degree 2, as alpha -> 0. The
  # paper's -(beta / alpha) mu is the case of degree 1; for others its remainder
  # O(beta (alpha + beta)) is as large as mu / alpha itself.
  problem, direction = _problem(2), _DIRECTIONS[rule]
  distance, degree = _MATCHING[matching]
  geometry = _geometry(problem, direction, num_updates)
  alpha, beta = 1e-2, 1e-3
  displacement = -alpha * geometry.pg
  change = _change_of_f(
    problem,
    direction,
    _bmg_loss(_displaced(displacement), distance),
    num_updates,
  )
  x = geometry.student
  mu = distance(x + displacement, x)
  np.testing.assert_allclose(
    change(beta), -degree * beta / alpha * mu, rtol=1e-2
  )


@_every_rule
@_every_k
def test_meta_gradients_are_the_l2_case(rule, num_updates):
  # The target x - g / 2 has u = 2 (x - target) = g, whatever beta is.
  problem, direction = _problem(3), _DIRECTIONS[rule]
  mg = _change_of_f(
    problem, direction, engine.direct_loss(problem.objective), num_updates
  )
  bootstrap = _grounded(problem, direction, target_rate=0.5)
  bmg = _change_of_f(
    problem, direction, _bmg_loss(bootstrap, _squared_l2), num_updates
  )
  np.testing.assert_allclose(bmg(0.1), mg(0.1), rtol=1e-10)


def _corollary_1(problem, direction, num_updates):
  """Returns geometry, and the changes of f by MG and by the corollary's BMG.

  BMG's target is x - P g |g| / |P g|, as far from x as a gradient step of rate
  1. Its u is twice the displacement, as mu is a square; half MG's rate makes up
  for that. So f changes by -beta |g| |P g| against MG's -beta g^T P g, and
  Cauchy-Schwarz says which is more.
  """
  geometry = _geometry(problem, direction, num_updates)
  g, pg = geometry.g, geometry.pg
  displacement = -pg * jnp.linalg.norm(g) / jnp.linalg.norm(pg)
  mg = _change_of_f(
    problem, direction, engine.direct_loss(problem.objective), num_updates
  )
  bmg = _change_of_f(
    problem,
    direction,
    _bmg_loss(_displaced(displacement), _squared_l2),
    num_updates,
  )
  return geometry, mg, lambda beta: bmg(beta / 2)


@_every_rule
@_every_k
@pytest.mark.parametrize('seed', range(3))
def test_corollary_1_bmg_improves_more(rule, num_updates, seed):
  geometry, mg, bmg = _corollary_1(
    _problem(seed), _DIRECTIONS[rule], num_updates
  )
  g, pg = geometry.g, geometry.pg
  advantage = jnp.linalg.norm(g) * jnp.linalg.norm(pg) - g @ pg
  assert advantage > 1e-3 * (g @ pg)  # Not parallel.
  _assert_predicted(
    lambda beta: bmg(beta) - mg(beta), lambda beta: -advantage * beta
  )


@_every_k
def test_corollary_1_equality_when_parallel(num_updates):
  # With the same curvature everywhere and a rotation for a mixing, J is a
  # multiple of that rotation, and P of the identity.
  rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
  problem = _problem(0)._replace(
    curvature=2.0 * jnp.eye(_SIZE),
    mixing=jnp.asarray(rotation),
    meta_params=jnp.ones(_SIZE),
  )
  _, mg, bmg = _corollary_1(problem, _linear_map, num_updates)
  assert mg(1e-2) < 0
  np.testing.assert_allclose(bmg(1e-2), mg(1e-2), rtol=1e-10)
