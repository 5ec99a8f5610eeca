"""Networks, and what is measured on their outputs.

A network is a pure function of parameters and inputs: batch normalisation uses
the statistics of the batch at hand, in training and evaluation alike
(transductive, as in MAML's code).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from bmg.configs.few_shot import schema

Params = Mapping[str, Mapping[str, jax.Array]]

_HEAD = 'head'
_BATCH_NORM_EPSILON = 1e-3
_CONVOLUTION_SIZE = 3


class Network(NamedTuple):
  """A function with parameters."""

  # (random key) -> parameters.
  init: Callable[[jax.Array], Params]
  # (parameters, inputs [N, ...]) -> outputs [N, O].
  apply: Callable[[Params, jax.Array], jax.Array]


class Objective(NamedTuple):
  """Functions of outputs [N, O]; all return a mean over N, a scalar."""

  # (outputs, labels).
  loss: Callable[[jax.Array, jax.Array], jax.Array]
  metric: Callable[[jax.Array, jax.Array], jax.Array]
  # KL(predictions of the first outputs || predictions of the second).
  divergence: Callable[[jax.Array, jax.Array], jax.Array]


def make_network(
  config: schema.Network, input_shape: Sequence[int], num_outputs: int
) -> Network:
  """Returns an MLP for inputs [D], a convolutional network for [H, W, C]."""

  def forward(inputs: jax.Array) -> jax.Array:
    if len(input_shape) == 1:
      hidden = hk.nets.MLP(config.hidden, activate_final=True)(inputs)
    else:
      hidden = _blocks(config, inputs)
    return hk.Linear(num_outputs, name=_HEAD)(hidden)

  network: hk.Transformed = hk.without_apply_rng(hk.transform(forward))
  example = jnp.zeros((1, *input_shape))
  return Network(lambda key: network.init(key, example), network.apply)


def split_head(params: Params) -> tuple[Params, Params]:
  """Returns the parameters before the last layer, and those of it."""
  return hk.data_structures.partition(
    lambda module, name, value: module != _HEAD, params
  )


def classification() -> Objective:
  """Returns cross-entropy, accuracy and the KL of categorical predictions."""

  def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)
    return -jnp.mean(chosen)

  def metric(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels)

  def divergence(logits_p: jax.Array, logits_q: jax.Array) -> jax.Array:
    log_p, log_q = jax.nn.log_softmax(logits_p), jax.nn.log_softmax(logits_q)
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))

  return Objective(loss, metric, divergence)


def regression(sigma: float) -> Objective:
  """Returns squared errors, and the KL of Gaussian predictions.

  Args:
    sigma: the standard deviation of all predictions. The KL of two Gaussians
      with one variance is (difference of means)^2 / (2 sigma^2), and symmetric.
  """

  def error(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(outputs - labels))

  return Objective(
    error, error, lambda p, q: jnp.mean(jnp.square(p - q)) / (2 * sigma**2)
  )


def _blocks(config: schema.Network, images: jax.Array) -> jax.Array:
  """MAML's blocks: 3x3 convolution, batch norm, ReLU, 2x2 max-pool.

  A map of one pixel is not pooled further, so small images do not limit the
  number of blocks.

  Args:
    config: width and number of blocks.
    images: [N, H, W, C].

  Returns:
    Features [N, F].
  """
  hidden = images
  for index in range(config.num_blocks):
    hidden = _convolution(hidden, config.width, f'convolution_{index}')
    batch_norm = _BatchNorm(name=f'batch_norm_{index}')
    hidden = jax.nn.relu(batch_norm(hidden))
    if min(hidden.shape[1:3]) > 1:
      hidden = _max_pool(hidden)
  return jnp.reshape(hidden, (hidden.shape[0], -1))


def _convolution(images: jax.Array, width: int, name: str) -> jax.Array:
  """A 3x3 convolution as one matrix product; [N, H, W, C] to [N, H, W, width].

  Each task has weights of its own, and `jax.vmap` makes grouped convolutions of
  that, which XLA runs several times slower on a CPU than batched products.
  Without a bias: batch norm adds one.
  """
  _, height, breadth, _ = images.shape
  padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  shifted = [
    padded[:, row : row + height, column : column + breadth]
    for row in range(_CONVOLUTION_SIZE)
    for column in range(_CONVOLUTION_SIZE)
  ]
  patches = jnp.concatenate(shifted, axis=-1)
  init = hk.initializers.VarianceScaling(1.0, 'fan_avg', 'uniform')
  return hk.Linear(width, with_bias=False, w_init=init, name=name)(patches)


class _BatchNorm(hk.Module):
  """Batch norm [N, H, W, C] by the statistics of the batch."""

  def __call__(self, hidden: jax.Array) -> jax.Array:
    mean = jnp.mean(hidden, axis=(0, 1, 2))
    variance = jnp.var(hidden, axis=(0, 1, 2))
    shape = hidden.shape[-1:]
    scale = hk.get_parameter('scale', shape, init=jnp.ones)
    offset = hk.get_parameter('offset', shape, init=jnp.zeros)
    multiplier = scale * jax.lax.rsqrt(variance + _BATCH_NORM_EPSILON)
    return (hidden - mean) * multiplier + offset


def _max_pool(hidden: jax.Array) -> jax.Array:
  """Halves height and width; an odd row or column at the end is dropped."""
  count, height, breadth, channels = hidden.shape
  height, breadth = height // 2, breadth // 2
  cropped = hidden[:, : 2 * height, : 2 * breadth]
  windows = cropped.reshape(count, height, 2, breadth, 2, channels)
  return jnp.max(windows, axis=(2, 4))
