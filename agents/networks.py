"""Haiku networks: a convolutional torso with policy and value heads."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from bmg.agents import types
from bmg.configs import schema

# Per torso of IMPALA's residual kind: channels of each section, then the size
# of the linear layer. Paper, appendix C; IMPALA (2018), figure 3.
_RESIDUAL_TORSOS = {
  'impala_paper': ((64, 128, 128, 64), 512),
  'impala_2018': ((16, 32, 32), 256),
}


class _PlainTorso(NamedTuple):
  """Convolutions without residual blocks."""

  # (channels, kernel, stride) of each.
  layers: Sequence[tuple[int, int, int]]
  # Size of the linear layer.
  hidden: int
  # Whether each image gets zero mean and unit variance.
  standardize: bool


_PLAIN_TORSOS = {
  # Mnih et al. (2015).
  'nature': _PlainTorso(((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512, False),
  # Fits 42x42 input: a quarter of the pixels, which leave little contrast to a
  # ball of one pixel.
  'small': _PlainTorso(((16, 4, 2), (32, 4, 2), (32, 4, 2)), 256, True),
}

# By name, NumPy may find another package's bfloat16.
_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def make_network(config: schema.Agent, num_actions: int) -> hk.Transformed:
  """Returns the agent's network.

  Args:
    config: names the torso and the heads' hidden layers.
    num_actions: A.

  Returns:
    A pure `init(rng, observations)` and `apply(params, rng, observations)` from
    uint8 [N, H, W, C] to a `NetworkOutput` of float32 for N states. No
    randomness is used: pass `rng=None` to `apply`.
  """

  def head(size: int, name: str, features: jax.Array) -> jax.Array:
    return hk.nets.MLP((*config.head_hidden, size), name=name)(features)

  def value(name: str, features: jax.Array) -> jax.Array:
    return jnp.squeeze(head(1, name, features), axis=-1)

  def forward(observations: jax.Array) -> types.NetworkOutput:
    chex.assert_rank(observations, 4)
    chex.assert_type(observations, jnp.uint8)
    dtype = _DTYPES[config.torso_dtype]
    with hk.custom_getter(_cast_to(dtype)), hk.custom_creator(_float32):
      features = _torso(config.torso, observations, dtype).astype(jnp.float32)
    logits, values = [], []
    for suffix in (
      '',
      *(f'_aux{i + 1}' for i in range(config.auxiliary_heads)),
    ):
      logits.append(head(num_actions, f'policy{suffix}', features))
      values.append(value(f'value{suffix}', features))
    heads = types.HeadOutput(jnp.stack(logits), jnp.stack(values))
    if not config.outer_critic:
      return types.NetworkOutput(heads)
    return types.NetworkOutput(heads, value('outer_value', features))

  return hk.transform(forward)


def _cast_to(dtype: jnp.dtype) -> Callable[..., jax.Array]:
  """Has parameters computed with in `dtype`, whatever they are stored in."""
  return lambda getter, value, context: getter(value.astype(dtype))


def _float32(
  creator: Callable[..., jax.Array],
  shape: Sequence[int],
  dtype: jnp.dtype,
  init: hk.initializers.Initializer,
  context: Any,
) -> jax.Array:
  """Has parameters stored in float32, whatever they are computed with in."""
  del dtype, context
  return creator(shape, jnp.float32, init)


def _torso(name: str, images: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Maps uint8 [N, H, W, C] images to [N, F] features of `dtype`."""
  if name in _RESIDUAL_TORSOS:
    channels, hidden = _RESIDUAL_TORSOS[name]
    features = _to_unit_interval(images, dtype)
    for index, width in enumerate(channels):
      features = _residual_section(features, width, f'section_{index}')
    features = jax.nn.relu(features)
  else:
    layers, hidden, standardize = _PLAIN_TORSOS[name]
    (width, kernel, stride), *others = layers
    features = _pixel_blocks(images, kernel, stride, dtype)
    if standardize:
      features = _standardize(features, _to_unit_interval(images, dtype))
    features = _block_convolution(features, width, kernel // stride, 'conv_0')
    for index, (width, kernel, stride) in enumerate(others, start=1):
      features = _block_convolution(
        _space_to_depth(features, kernel, stride),
        width,
        kernel // stride,
        f'conv_{index}',
      )
  return jax.nn.relu(hk.Linear(hidden, name='torso')(hk.Flatten()(features)))


def _pixel_blocks(
  images: jax.Array, kernel: int, stride: int, dtype: jnp.dtype
) -> jax.Array:
  """Pixels in [0, 1], after space-to-depth, by what is faster on the platform.

  `benchmarks.step.torso` compares the two.
  """
  return jax.lax.platform_dependent(
    images,
    cpu=lambda images: _move_bytes(images, kernel, stride, dtype),
    default=lambda images: _move_floats(images, kernel, stride, dtype),
  )


def _move_bytes(
  images: jax.Array, kernel: int, stride: int, dtype: jnp.dtype
) -> jax.Array:
  # Without the barrier, XLA fuses the first with the second, into a loop over
  # single floats.
  blocks = jax.lax.optimization_barrier(_space_to_depth(images, kernel, stride))
  return _to_unit_interval(blocks, dtype)


def _move_floats(
  images: jax.Array, kernel: int, stride: int, dtype: jnp.dtype
) -> jax.Array:
  return _space_to_depth(_to_unit_interval(images, dtype), kernel, stride)


def _to_unit_interval(pixels: jax.Array, dtype: jnp.dtype) -> jax.Array:
  return jnp.asarray(pixels, dtype) / 255.0


def _standardize(features: jax.Array, images: jax.Array) -> jax.Array:
  """Shifts and scales pixels so that `images` have mean 0 and variance 1."""
  mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
  variance = jnp.var(images, axis=(1, 2, 3), keepdims=True)
  return (features - mean) * jax.lax.rsqrt(variance + 1e-4)


def _block_convolution(
  blocks: jax.Array, width: int, kernel: int, name: str
) -> jax.Array:
  """A convolution of stride 1 with padding VALID, and a ReLU.

  On blocks of stride^2 pixels it is the same function as one with strides, with
  its weights in another order. Its gradient is faster, as strides make dilated
  convolutions of the backward pass.
  """
  return jax.nn.relu(
    hk.Conv2D(width, kernel, padding='VALID', name=name)(blocks)
  )


def _space_to_depth(features: jax.Array, kernel: int, stride: int) -> jax.Array:
  """Makes one position of stride^2 pixels: [N, H', W', stride^2 * C].

  H' and W' leave out what no window of that kernel and stride covers.
  """
  if features.dtype == jnp.uint8 and features.shape[-1] % 4 == 0:
    # Four bytes at once are moved four times as fast.
    words = features.reshape(*features.shape[:-1], -1, 4)
    words = jax.lax.bitcast_convert_type(words, jnp.uint32)
    blocks = _space_to_depth(words, kernel, stride)
    pixels = jax.lax.bitcast_convert_type(blocks, jnp.uint8)
    return pixels.reshape(*blocks.shape[:-1], -1)
  n, height, width, channels = features.shape
  rows, columns = (
    (size - kernel) // stride + kernel // stride for size in (height, width)
  )
  blocks = features[:, : rows * stride, : columns * stride].reshape(
    n, rows, stride, columns, stride, channels
  )
  return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, -1)


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
