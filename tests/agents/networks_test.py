"""Network shapes and sizes."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmg.agents import networks
from bmg.configs import schema


@pytest.mark.parametrize(
  ('torso', 'size'),
  [('small', 42), ('nature', 84), ('impala_2018', 84), ('impala_paper', 84)],
)
def test_output_shapes(torso, size):
  observations = jnp.zeros((2, size, size, 4), jnp.uint8)
  for auxiliary_heads, outer_critic in ((0, False), (2, True)):
    config = schema.Agent(
      torso=torso,
      head_hidden=(32,),
      auxiliary_heads=auxiliary_heads,
      outer_critic=outer_critic,
    )
    network = networks.make_network(config, num_actions=6)
    params = jax.eval_shape(network.init, jax.random.key(0), observations)
    output = jax.eval_shape(
      lambda p, o, n=network: n.apply(p, None, o), params, observations
    )
    assert output.heads.logits.shape == (config.num_heads, 2, 6)
    assert output.heads.values.shape == (config.num_heads, 2)
    if outer_critic:
      assert output.outer_values.shape == (2,)
    else:
      assert output.outer_values is None


def _small_network(**changes):
  config = schema.Agent(torso='small', head_hidden=(8,), **changes)
  network = hk.Transformed(
    *(jax.jit(f) for f in networks.make_network(config, num_actions=4))
  )
  rng = np.random.default_rng(0)
  images = rng.integers(0, 255, (3, 42, 42, 4), dtype=np.uint8)
  return network, network.init(jax.random.key(0), images), images


def test_each_head_has_parameters_of_its_own():
  network, params, images = _small_network(outer_critic=True)
  before = network.apply(params, None, images)
  assert len(np.unique(before.heads.values, axis=0)) == 3
  for head in ('policy', 'value'):
    for index, suffix in enumerate(('', '_aux1', '_aux2')):
      changed = {
        module: jax.tree.map(lambda x: x + 0.1, leaves)
        if module.startswith(f'{head}{suffix}/')
        else leaves
        for module, leaves in params.items()
      }
      after = network.apply(changed, None, images)
      for name, old, new in (
        ('policy', before.heads.logits, after.heads.logits),
        ('value', before.heads.values, after.heads.values),
      ):
        moved = np.any(old != new, axis=tuple(range(1, old.ndim)))
        expected = (np.arange(3) == index) & (name == head)
        np.testing.assert_array_equal(moved, expected)
      np.testing.assert_array_equal(before.outer_values, after.outer_values)


def test_the_main_head_and_its_outer_value():
  network, params, images = _small_network(outer_critic=True)
  output = network.apply(params, None, images)
  np.testing.assert_array_equal(output.main.logits, output.heads.logits[0])
  np.testing.assert_array_equal(output.main.values, output.heads.values[0])
  np.testing.assert_array_equal(output.outer.logits, output.main.logits)
  np.testing.assert_array_equal(output.outer.values, output.outer_values)
  assert np.all(output.outer.values != output.main.values)
  # Without an outer critic, the plain objective learns the ordinary one.
  without = output._replace(outer_values=None)
  np.testing.assert_array_equal(without.outer.values, output.main.values)


def _size(params):
  return sum(np.prod(x.shape) for x in jax.tree.leaves(params))


def test_the_papers_network_has_the_papers_size():
  network = networks.make_network(schema.Agent(), num_actions=18)
  params = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, 210, 160, 12), jnp.uint8)
  )
  # Each section has a convolution from the last width and four within its own,
  # of 3 x 3 with biases, and halves the picture: 14 x 10 in the end.
  torso = 0
  for last, width in ((12, 64), (64, 128), (128, 128), (128, 64)):
    torso += 9 * last * width + width
    torso += 4 * (9 * width * width + width)
  torso += 14 * 10 * 64 * 512 + 512
  # The paper's numbers give about 6.4 million up to the linear layer.
  assert torso == 6_366_336
  # Three policies and three values, from the 512 features.
  hidden = (512 * 256 + 256) + (256 * 256 + 256)
  policy, value = hidden + 256 * 18 + 18, hidden + 256 + 1
  assert _size(params) == torso + 3 * (policy + value)
  in_torso = {
    name: module
    for name, module in params.items()
    if name.startswith(('section', 'torso'))
  }
  assert _size(in_torso) == torso
  assert params['torso']['w'].shape == (14 * 10 * 64, 512)


def test_a_bfloat16_torso_keeps_float32_parameters_and_outputs():
  network, params, images = _small_network()
  half, half_params, _ = _small_network(torso_dtype='bfloat16')
  # The same parameters, so that a checkpoint fits both.
  jax.tree.map(np.testing.assert_array_equal, params, half_params)
  assert {x.dtype for x in jax.tree.leaves(half_params)} == {np.dtype('f4')}
  output = network.apply(params, None, images)
  half_output = half.apply(params, None, images)
  for exact, rounded in zip(output.heads, half_output.heads, strict=True):
    assert rounded.dtype == jnp.float32
    difference = np.max(np.abs(exact - rounded))
    assert 0.0 < difference < 0.05 * np.max(np.abs(exact))
  # Also outside of jit, where NumPy would make float32 of its bfloat16.
  with jax.disable_jit():
    eager = half.apply(params, None, images).main.values
  assert np.max(np.abs(eager - output.main.values)) > 1e-5
  # And gradients, which the optimiser adds up.
  gradient = jax.grad(lambda p: half.apply(p, None, images).main.values.sum())(
    params
  )
  assert {x.dtype for x in jax.tree.leaves(gradient)} == {np.dtype('f4')}
  assert np.any(gradient['conv_0']['w'])


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
  np.testing.assert_allclose(
    output.main.logits, brighter.main.logits, atol=1e-2
  )
  other = network.apply(params, None, image[:, ::-1])
  assert not np.allclose(output.main.logits, other.main.logits, atol=1e-2)


# Bytes that can be moved by fours or not, and pixels that no window covers.
@pytest.mark.parametrize(('size', 'channels'), [(84, 4), (87, 12), (86, 3)])
@pytest.mark.parametrize('pixel_blocks', ['_move_bytes', '_move_floats'])
def test_strided_convolutions_are_ordinary_valid_ones(
  size, channels, pixel_blocks, monkeypatch
):
  # Each platform has one of the two.
  monkeypatch.setattr(
    networks, '_pixel_blocks', getattr(networks, pixel_blocks)
  )
  # The Nature network by the textbook: the same weights, back in pixel order.
  network = networks.make_network(
    schema.Agent(torso='nature', head_hidden=()), num_actions=2
  )
  rng = np.random.default_rng(0)
  observations = rng.integers(0, 255, (3, size, size, channels), dtype=np.uint8)
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
    network.apply(params, None, observations).main.logits,
    hidden @ head['w'] + head['b'],
    rtol=1e-4,
    atol=1e-5,
  )
