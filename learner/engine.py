"""Bootstrapped meta-gradients, for any update rule: Flennerhag et al. (2022).

An agent's update rule depends on meta-parameters w. The engine applies it K
times, asks an outer loss how good the resulting parameters x^(K)(w) are, and
differentiates that in w. With the bootstrapped outer loss, the target is what
further updates make of x^(K) (section 3, equation 3):

    target = stop_gradient(bootstrap(x^(K)))
    w <- w - beta * grad_w matching(target, x^(K)(w)).

Nothing here knows about reinforcement learning. Parameters, optimiser states,
meta-parameters and data are arbitrary pytrees.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


class AgentState(NamedTuple):
  """What an update rule moves: parameters x and optimiser statistics h."""

  params: PyTree
  opt_state: optax.OptState


class MetaData(NamedTuple):
  """The data of one meta-step."""

  # K batches, one for each differentiated update.
  inner: Sequence[PyTree]
  # L - 1 batches for the target's meta-learned updates, used nowhere else.
  bootstrap: Sequence[PyTree]


# (params, frozen_params, meta_params, batch) -> (scalar, auxiliary outputs).
# The update differentiates in `params` alone. `frozen_params` are the same
# parameters, for what that gradient must treat as constant, such as value
# targets that bootstrap; meta-gradients do pass through them.
Loss = Callable[[PyTree, PyTree, PyTree, PyTree], tuple[jax.Array, PyTree]]
# (state, meta_params, batch) -> (next state, auxiliary outputs).
UpdateRule = Callable[[AgentState, PyTree, PyTree], tuple[AgentState, PyTree]]
# (x^(K), meta_params, data) -> target parameters.
TargetBootstrap = Callable[[AgentState, PyTree, MetaData], PyTree]
# (target parameters, parameters, batch) -> (scalar, auxiliary outputs).
MatchingFunction = Callable[[PyTree, PyTree, PyTree], tuple[jax.Array, PyTree]]
# (x^(K), meta_params, data) -> (scalar, auxiliary outputs).
OuterLoss = Callable[[AgentState, PyTree, MetaData], tuple[jax.Array, PyTree]]


class MetaStepOutput(NamedTuple):
  """The result of one meta-step."""

  # x^(K), the agent's next state.
  agent: AgentState
  meta_params: PyTree
  meta_opt_state: optax.OptState
  # Of the meta-gradient, before the meta-optimiser clips it.
  meta_gradient: PyTree
  outer_loss: jax.Array
  # Auxiliary outputs of the K updates (a list) and of the outer loss.
  inner_aux: Sequence[PyTree]
  outer_aux: PyTree


def mixed_mode_gradient(
  loss: Loss,
) -> Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]:
  """Returns the gradient of `loss` in `params`, cheap to differentiate again.

  Reverse-mode differentiation of a gradient g(x, w) differentiates a backward
  pass backwards. The vector-Jacobian product that it wants is also the
  directional derivative of the gradient along the cotangent v, as second
  derivatives commute:

      v^T dg/d(x, w) = d/de grad_(x, w) loss(x + e v, w) at e = 0.

  That is forward over reverse: less memory, and, where only w is asked for, no
  second-order backward pass through the network (cf. MixFlow-MG, arXiv
  2505.00793). The gradient is the one of a stop-gradient on `frozen_params`,
  but its own derivative is exact.

  Args:
    loss: twice differentiable in all but the batch.

  Returns:
    A function (params, meta_params, batch) -> (gradient in params, aux). It can
    be differentiated in params and meta_params; its aux is a constant.
  """

  def gradient(
    params: PyTree, meta_params: PyTree, batch: PyTree
  ) -> tuple[PyTree, PyTree]:
    grads, aux = jax.grad(loss, has_aux=True)(
      params, params, meta_params, batch
    )
    return grads, jax.lax.stop_gradient(aux)

  def forward(
    params: PyTree, meta_params: PyTree, batch: PyTree
  ) -> tuple[PyTree, PyTree]:
    return gradient(params, meta_params, batch), (params, meta_params, batch)

  def backward(
    residuals: tuple[PyTree, ...], cotangents: PyTree
  ) -> tuple[PyTree, PyTree, None]:
    params, meta_params, batch = residuals
    direction, _ = cotangents

    def all_gradients(moved: PyTree) -> tuple[PyTree, PyTree, PyTree]:
      return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(
        moved, params, meta_params, batch
      )[0]

    _, products = jax.jvp(all_gradients, (params,), (direction,))
    in_params = jax.tree.map(jnp.add, products[0], products[1])
    # None: data has no gradient.
    return in_params, products[2], None

  differentiable = jax.custom_vjp(gradient)
  differentiable.defvjp(forward, backward)
  return differentiable


def gradient_update(
  loss: Loss, optimizer: optax.GradientTransformation
) -> UpdateRule:
  """Returns the update rule x + optimizer(grad_x loss(x, x, w, batch)).

  Args:
    loss: the (meta-parameterised) objective.
    optimizer: must have finite derivatives; see `agents.optimizers`.

  Returns:
    An update rule whose auxiliary outputs are (gradient, loss's aux).
  """
  gradient = mixed_mode_gradient(loss)

  def update(
    state: AgentState, meta_params: PyTree, batch: PyTree
  ) -> tuple[AgentState, PyTree]:
    grads, aux = gradient(state.params, meta_params, batch)
    steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, steps)
    return AgentState(params, opt_state), (jax.lax.stop_gradient(grads), aux)

  return update


def grounded_bootstrap(
  update: UpdateRule, plain_update: UpdateRule
) -> TargetBootstrap:
  """Returns the paper's target: L - 1 meta-learned updates, then a plain one.

  The meta-learned updates use fresh data each; the plain one, which keeps the
  target from rewarding any w whatever, uses the last inner batch again (paper,
  section 3 and appendix C).

  Args:
    update: the meta-learned rule.
    plain_update: an update on the true objective; gets `None` for w.
  """

  def bootstrap(
    state: AgentState, meta_params: PyTree, data: MetaData
  ) -> PyTree:
    for batch in data.bootstrap:
      state, _ = update(state, meta_params, batch)
    state, _ = plain_update(state, None, data.inner[-1])
    return state.params

  return bootstrap


def bootstrapped_loss(
  bootstrap: TargetBootstrap, matching: MatchingFunction
) -> OuterLoss:
  """Returns BMG's outer loss: distance of x^(K) to a target made from it."""

  def outer_loss(
    state: AgentState, meta_params: PyTree, data: MetaData
  ) -> tuple[jax.Array, PyTree]:
    # The target is a constant: neither the parameters it starts from, nor the
    # w that its own updates use, may carry a gradient (paper, section 3).
    start, constant_w = jax.lax.stop_gradient((state, meta_params))
    target = jax.lax.stop_gradient(bootstrap(start, constant_w, data))
    return matching(target, state.params, data.inner[-1])

  return outer_loss


def direct_loss(loss: Loss) -> OuterLoss:
  """Returns the outer loss of standard meta-gradients: the plain objective."""

  def outer_loss(
    state: AgentState, meta_params: PyTree, data: MetaData
  ) -> tuple[jax.Array, PyTree]:
    del meta_params  # The true objective does not depend on them.
    # Judged by its gradient as an update rule, so targets are constant here.
    frozen_params = jax.lax.stop_gradient(state.params)
    return loss(state.params, frozen_params, None, data.inner[-1])

  return outer_loss


def apply_updates(
  update: UpdateRule,
  state: AgentState,
  meta_params: PyTree,
  batches: Sequence[PyTree],
) -> tuple[AgentState, Sequence[PyTree]]:
  """Applies the rule once per batch; returns x^(K) and each update's aux.

  A Python loop, not a scan: K is small, and XLA runs convolutions inside a
  while loop much slower on CPU.
  """
  auxes = []
  for batch in batches:
    state, aux = update(state, meta_params, batch)
    auxes.append(aux)
  return state, auxes


def meta_step(
  update: UpdateRule,
  outer_loss: OuterLoss,
  meta_optimizer: optax.GradientTransformation,
) -> Callable[[AgentState, PyTree, optax.OptState, MetaData], MetaStepOutput]:
  """Returns one step of meta-learning: K updates and a move of w.

  The agent continues from x^(K); the target's updates are thrown away.

  Args:
    update: the agent's update rule, differentiable in meta_params.
    outer_loss: judges x^(K); `bootstrapped_loss` or `direct_loss`.
    meta_optimizer: moves the meta-parameters.
  """

  def step(
    state: AgentState,
    meta_params: PyTree,
    meta_opt_state: optax.OptState,
    data: MetaData,
  ) -> MetaStepOutput:
    def objective(meta_params: PyTree) -> tuple[jax.Array, PyTree]:
      final, inner_aux = apply_updates(update, state, meta_params, data.inner)
      loss, outer_aux = outer_loss(final, meta_params, data)
      return loss, (final, inner_aux, outer_aux)

    (loss, (final, inner_aux, outer_aux)), grads = jax.value_and_grad(
      objective, has_aux=True
    )(meta_params)
    steps, meta_opt_state = meta_optimizer.update(
      grads, meta_opt_state, meta_params
    )
    return MetaStepOutput(
      agent=final,
      meta_params=optax.apply_updates(meta_params, steps),
      meta_opt_state=meta_opt_state,
      meta_gradient=grads,
      outer_loss=loss,
      inner_aux=inner_aux,
      outer_aux=outer_aux,
    )

  return step
