"""What the training step reports of itself, as scalars by name."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from agents import losses, types
from learner import engine

PyTree = Any
Metrics = dict[str, jax.Array]


def agent_metrics(aux: engine.UpdateAux) -> Metrics:
  """Loss terms and gradient norm of one update."""
  terms: losses.LossTerms = aux.loss_aux
  metrics = {
    'loss/total': terms.total,
    'grad_norm': optax.global_norm(aux.gradient),
  }
  for name, value in terms.main._asdict().items():
    if name != 'total':
      metrics[f'loss/{name}'] = value
  metrics['loss/auxiliary'] = terms.auxiliary
  metrics['loss/outer_critic'] = terms.outer_critic
  return metrics


def hyper_metrics(hypers: types.Hypers, learned: Sequence[str]) -> Metrics:
  """Each hyper-parameter, the main head's under its plain name."""
  metrics = {}
  for name, value in hypers._asdict().items():
    if name == 'cut_leak' and name not in learned:
      continue  # It is the leak.
    by_head = jnp.atleast_1d(jnp.asarray(value, jnp.float32))
    metrics[f'meta/{name}'] = by_head[0]
    for head in range(1, len(by_head)):
      metrics[f'meta/{name}_aux{head}'] = by_head[head]
  return metrics


def meta_metrics(
  output: engine.MetaStepOutput, last_gradient: PyTree, mode: str
) -> Metrics:
  """The outer loss and the meta-gradient, compared with the last one."""
  metrics = {
    'meta/grad_norm': optax.global_norm(output.meta_gradient),
    'meta/grad_cosine': cosine(output.meta_gradient, last_gradient),
  }
  if mode == 'bmg':
    metrics['meta/matching_loss'] = output.outer_loss
    if output.outer_aux.kl is not None:
      metrics['meta/kl'] = output.outer_aux.kl
  else:
    metrics['meta/outer_loss'] = output.outer_loss
  return metrics


def finite_metrics(metrics: Metrics) -> Metrics:
  """Whether each of them is finite, and whether all are."""
  finite = {f'finite/{name}': jnp.isfinite(x) for name, x in metrics.items()}
  finite['finite'] = jnp.all(jnp.stack(list(finite.values())))
  return finite


def cosine(a: PyTree, b: PyTree) -> jax.Array:
  """Cosine of the angle between two vectors; 0 where one of them is zero."""
  products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
  norms = optax.global_norm(a) * optax.global_norm(b)
  product = sum(jax.tree.leaves(products), start=jnp.zeros(()))
  return product / jnp.where(norms > 0, norms, 1.0)
