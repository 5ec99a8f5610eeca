"""What the training step reports of itself, as scalars by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bmg import engine
from bmg.agents import losses, types

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
  metrics: Metrics = {}
  for name, value in hypers._asdict().items():
    if name == 'cut_leak' and name not in learned:
      continue  # It is the leak.
    metrics |= _by_head(f'meta/{name}', value)
  return metrics


def travel_metrics(
  travel: Callable[[PyTree], Mapping[str, jax.Array]],
  meta_params: PyTree,
  meta_update: PyTree,
  learning_rate: float,
) -> Metrics:
  """How far each logit has come, and what share of a step it gets.

  The share is that of the meta-optimiser's nominal step, its learning rate,
  which Adam takes where all meta-gradients agree and none is small beside its
  epsilon. A share of nearly 0 all along means that nothing is learned.

  Args:
    travel: (meta-parameters) -> each logit's distance from its start, {name:
      float [H]}.
    meta_params: before the step.
    meta_update: the step.
    learning_rate: of the meta-optimiser.
  """
  distances, steps = jax.jvp(travel, (meta_params,), (meta_update,))
  metrics: Metrics = {}
  for name, distance in distances.items():
    metrics |= _by_head(f'travel/{name}', distance)
    metrics |= _by_head(f'step/{name}', jnp.abs(steps[name]) / learning_rate)
  return metrics


def _by_head(name: str, values: jax.Array | float) -> Metrics:
  """The main head's value under the plain name, then the auxiliary ones'."""
  by_head = jnp.atleast_1d(jnp.asarray(values, jnp.float32))
  return {
    f'{name}_aux{head}' if head else name: value
    for head, value in enumerate(by_head)
  }


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
