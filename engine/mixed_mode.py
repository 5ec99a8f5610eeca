"""Gradients that are cheap to differentiate again: forward over reverse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def gradient(
  loss: Callable[..., tuple[jax.Array, PyTree]], rematerialize: bool = False
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
    loss: an `engine.Loss`, twice differentiable in all but the batch.
    rematerialize: compute what the derivative needs of the gradient again, as
      `jax.checkpoint` does, rather than keep it until then.

  Returns:
    A function (params, meta_params, batch) -> (gradient in params, aux). It can
    be differentiated in params and meta_params; its aux is a constant.
  """

  def primal(
    params: PyTree, meta_params: PyTree, batch: PyTree
  ) -> tuple[PyTree, PyTree]:
    grads, aux = jax.grad(loss, has_aux=True)(
      params, params, meta_params, batch
    )
    return grads, jax.lax.stop_gradient(aux)

  def forward(
    params: PyTree, meta_params: PyTree, batch: PyTree
  ) -> tuple[PyTree, PyTree]:
    return primal(params, meta_params, batch), (params, meta_params, batch)

  def backward(
    residuals: tuple[PyTree, ...], cotangents: PyTree
  ) -> tuple[PyTree, PyTree, None]:
    if rematerialize:
      # Otherwise XLA finds that it has computed these things before. Waiting
      # for the cotangents has it begin no earlier than it must.
      residuals, cotangents = jax.lax.optimization_barrier(
        (residuals, cotangents)
      )
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

  differentiable = jax.custom_vjp(primal)
  differentiable.defvjp(forward, backward)
  return differentiable
