"""Haiku networks: a convolutional torso with a policy and a value head."""

from collections.abc import Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from agents import types
from configs import schema

# Per torso of IMPALA's residual kind: channels of each section, then the size
# of the linear layer. Paper, appendix C; IMPALA (2018), figure 3.
_RESIDUAL_TORSOS = {
  'impala_paper': ((64, 128, 128, 64), 512),
  'impala_2018': ((16, 32, 32), 256),
}

# Per plain torso: (channels, kernel, stride) of each convolution, then the size
# of the linear layer. 'nature' is Mnih et al. (2015); 'small' fits 42x42 input.
_PLAIN_TORSOS = {
  'nature': (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
  'small': (((16, 4, 2), (32, 4, 2), (32, 4, 2)), 256),
}


def make_network(config: schema.Agent, num_actions: int) -> hk.Transformed:
  """Returns the agent's network.

  Args:
    config: names the torso and the heads' hidden layers.
    num_actions: A.

  Returns:
    A pure `init(rng, observations)` and `apply(params, rng, observations)` from
    uint8 [N, H, W, C] to a `NetworkOutput` of float32 [N, A] and [N]. No
    randomness is used: pass `rng=None` to `apply`.
  """

  def forward(observations: jax.Array) -> types.NetworkOutput:
    chex.assert_rank(observations, 4)
    chex.assert_type(observations, jnp.uint8)
    features = _torso(config.torso, observations.astype(jnp.float32) / 255.0)
    logits = _head(config.head_hidden, num_actions, 'policy')(features)
    values = _head(config.head_hidden, 1, 'value')(features)
    return types.NetworkOutput(logits, jnp.squeeze(values, axis=-1))

  return hk.transform(forward)


def _head(hidden: Sequence[int], size: int, name: str) -> hk.nets.MLP:
  return hk.nets.MLP((*hidden, size), name=name)


def _torso(name: str, images: jax.Array) -> jax.Array:
  """Maps float32 [N, H, W, C] images to [N, F] features."""
  if name in _RESIDUAL_TORSOS:
    channels, hidden = _RESIDUAL_TORSOS[name]
    features = images
    for index, width in enumerate(channels):
      features = _residual_section(features, width, f'section_{index}')
    features = jax.nn.relu(features)
  else:
    layers, hidden = _PLAIN_TORSOS[name]
    # A quarter of the pixels leaves little contrast to a ball of one pixel.
    features = _standardize(images) if name == 'small' else images
    for index, (width, kernel, stride) in enumerate(layers):
      features = jax.nn.relu(
        _strided_convolution(features, width, kernel, stride, f'conv_{index}')
      )
  return jax.nn.relu(hk.Linear(hidden, name='torso')(hk.Flatten()(features)))


def _standardize(images: jax.Array) -> jax.Array:
  """Gives each image zero mean and unit variance."""
  mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
  variance = jnp.var(images, axis=(1, 2, 3), keepdims=True)
  return (images - mean) * jax.lax.rsqrt(variance + 1e-4)


def _strided_convolution(
  features: jax.Array, width: int, kernel: int, stride: int, name: str
) -> jax.Array:
  """A VALID convolution, as one of stride 1 on blocks of stride^2 pixels.

  The same function, with its weights in another order; its gradient is faster,
  as strides make dilated convolutions of the backward pass.
  """
  n, height, width_in, channels = features.shape
  # VALID padding ignores what no window covers.
  rows, columns = (
    (size - kernel) // stride + kernel // stride for size in (height, width_in)
  )
  blocks = features[:, : rows * stride, : columns * stride].reshape(
    n, rows, stride, columns, stride, channels
  )
  blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, -1)
  return hk.Conv2D(width, kernel // stride, padding='VALID', name=name)(blocks)


def _residual_section(features: jax.Array, width: int, name: str) -> jax.Array:
  """Convolution, max-pooling, two residual blocks: IMPALA (2018), figure 3."""
  features = hk.Conv2D(width, 3, name=f'{name}_conv')(features)
  features = hk.max_pool(features, (3, 3, 1), (2, 2, 1), padding='SAME')
  for block in range(2):
    skip = features
    for layer in range(2):
      convolution = hk.Conv2D(width, 3, name=f'{name}_block_{block}_{layer}')
      features = convolution(jax.nn.relu(features))
    features += skip
  return features
