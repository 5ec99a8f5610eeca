"""Network shapes and sizes."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import networks
from configs import schema


@pytest.mark.parametrize(
  ('torso', 'size'),
  [('small', 42), ('nature', 84), ('impala_2018', 84), ('impala_paper', 84)],
)
def test_output_shapes(torso, size):
  config = schema.Agent(torso=torso, head_hidden=(32,))
  network = networks.make_network(config, num_actions=6)
  observations = jnp.zeros((2, size, size, 4), jnp.uint8)
  params = jax.eval_shape(network.init, jax.random.key(0), observations)
  output = jax.eval_shape(
    lambda p, o: network.apply(p, None, o), params, observations
  )
  assert output.logits.shape == (2, 6)
  assert output.values.shape == (2,)


def test_paper_torso_has_the_papers_size():
  # 210 x 160 x 12 input: about 6.4 million parameters up to the linear layer.
  network = networks.make_network(schema.Agent(), num_actions=18)
  params = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, 210, 160, 12), jnp.uint8)
  )
  torso = {
    name: module
    for name, module in params.items()
    if name.startswith(('section', 'torso'))
  }
  num_params = sum(np.prod(x.shape) for x in jax.tree.leaves(torso))
  assert 6.3e6 < num_params < 6.5e6
  # Each section halves the picture: 14 x 10 x 64 inputs to the linear layer.
  assert params['torso']['w'].shape == (14 * 10 * 64, 512)


def test_pixels_are_scaled_to_the_unit_interval():
  network = networks.make_network(
    schema.Agent(torso='nature', head_hidden=()), num_actions=2
  )
  observations = jnp.full((1, 84, 84, 4), 255, jnp.uint8)
  params = network.init(jax.random.key(0), observations)
  inputs = []

  def record_input(next_function, args, kwargs, context):
    if context.method_name == '__call__':
      inputs.append((context.module.module_name, args[0]))
    return next_function(*args, **kwargs)

  with hk.intercept_methods(record_input):
    network.apply(params, None, observations)
  np.testing.assert_allclose(dict(inputs)['conv_0'], 1.0)


def test_small_torso_standardises_each_image():
  # Brightness and contrast make no difference to it.
  network = networks.make_network(
    schema.Agent(torso='small', head_hidden=()), num_actions=2
  )
  rng = np.random.default_rng(0)
  image = rng.integers(0, 100, (1, 42, 42, 4), dtype=np.uint8)
  params = network.init(jax.random.key(0), image)
  output = network.apply(params, None, image)
  brighter = network.apply(params, None, (2 * image + 50).astype(np.uint8))
  np.testing.assert_allclose(output.logits, brighter.logits, atol=1e-2)
  other = network.apply(params, None, image[:, ::-1])
  assert not np.allclose(output.logits, other.logits, atol=1e-2)


def test_strided_convolutions_are_ordinary_valid_ones():
  # The Nature network by the textbook: the same weights, back in pixel order.
  network = networks.make_network(
    schema.Agent(torso='nature', head_hidden=()), num_actions=2
  )
  rng = np.random.default_rng(0)
  observations = rng.integers(0, 255, (3, 84, 84, 4), dtype=np.uint8)
  params = network.init(jax.random.key(0), observations)
  features = observations / np.float32(255)
  for index, (size, stride) in enumerate(((8, 4), (4, 2), (3, 1))):
    weights = params[f'conv_{index}']['w']
    blocks, channels = size // stride, features.shape[-1]
    # [block row, block column, row * column * C, F] to [row, column, C, F].
    kernel = weights.reshape(blocks, blocks, stride, stride, channels, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
    features = jax.nn.relu(
      jax.lax.conv_general_dilated(
        features,
        kernel.reshape(size, size, channels, -1),
        window_strides=(stride, stride),
        padding='VALID',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )
      + params[f'conv_{index}']['b']
    )
  flat = features.reshape(3, -1)
  hidden = jax.nn.relu(flat @ params['torso']['w'] + params['torso']['b'])
  head = params['policy/~/linear_0']
  np.testing.assert_allclose(
    network.apply(params, None, observations).logits,
    hidden @ head['w'] + head['b'],
    rtol=1e-4,
    atol=1e-5,
  )
