import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import networks


def _make(shape, **fields):
  network = networks.make_network(schema.Network(**fields), shape, 5)
  return network, jax.jit(network.init)(jax.random.key(0))


@pytest.mark.parametrize(
  ('size', 'num_blocks', 'pixels'),
  [(84, 4, 25), (28, 4, 1), (8, 2, 4), (8, 3, 1), (8, 4, 1)],
)
def test_pooling_halves_the_map_down_to_one_pixel(size, num_blocks, pixels):
  network, params = _make((size, size, 3), width=2, num_blocks=num_blocks)
  assert params['head']['w'].shape == (2 * pixels, 5)
  images = jnp.zeros((4, size, size, 3))
  assert jax.eval_shape(network.apply, params, images).shape == (4, 5)


def test_network_matches_one_of_library_convolutions():
  network, params = _make((11, 8, 3), width=4, num_blocks=2)
  key = jax.random.key(1)
  params = jax.tree.map(
    lambda x: x + 0.1 * jax.random.normal(key, x.shape), params
  )
  images = hidden = jax.random.normal(key, (6, 11, 8, 3))
  for index in range(2):
    weights = params[f'convolution_{index}']['w'].reshape(3, 3, -1, 4)
    hidden = jax.lax.conv_general_dilated(
      hidden,
      weights,
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    norm = params[f'batch_norm_{index}']
    hidden = jax.nn.standardize(hidden, axis=(0, 1, 2), epsilon=1e-3)
    hidden = jax.nn.relu(hidden * norm['scale'] + norm['offset'])
    hidden = jax.lax.reduce_window(
      hidden, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID'
    )
  expected = hidden.reshape(6, -1) @ params['head']['w'] + params['head']['b']
  np.testing.assert_allclose(
    network.apply(params, images), expected, rtol=2e-4, atol=2e-5
  )


def test_predictions_depend_on_the_batch_that_they_are_made_in():
  network, params = _make((8, 8, 1), width=4, num_blocks=2)
  images = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
  apply = jax.jit(network.apply)
  whole, half = apply(params, images), apply(params, images[:3])
  assert not np.allclose(whole[:3], half, atol=1e-3)


def test_mlp_has_the_hidden_layers_and_a_head():
  network, params = _make((1,), hidden=(7, 6))
  body, head = networks.split_head(params)
  assert list(head) == ['head']
  assert sorted(module['w'].shape for module in body.values()) == [
    (1, 7),
    (7, 6),
  ]
  assert network.apply(params, jnp.zeros((3, 1))).shape == (3, 5)


def test_classification_by_hand():
  objective = networks.classification()
  logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
  labels = jnp.array([0, 2])
  np.testing.assert_allclose(
    objective.loss(logits, labels), -np.log(0.5 * 0.1) / 2, rtol=1e-6
  )
  assert objective.metric(logits, labels) == 0.5
  uniform = jnp.zeros((2, 3))
  # KL(p || uniform) = log 3 - entropy(p).
  entropies = [1.5 * np.log(2), -0.2 * np.log(0.1) - 0.8 * np.log(0.8)]
  np.testing.assert_allclose(
    objective.divergence(logits, uniform),
    np.log(3) - np.mean(entropies),
    rtol=1e-5,
  )
  # KL(uniform || p) = -log 3 - mean log p.
  np.testing.assert_allclose(
    objective.divergence(uniform, logits),
    -np.log(3) - float(jnp.mean(logits)),
    rtol=1e-5,
  )


def test_regression_by_hand():
  objective = networks.regression(sigma=2.0)
  p, q = jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [2.0]])
  assert objective.loss(p, q) == 2.0
  assert objective.metric(p, q) == 2.0
  # (1 - 3)^2 / (2 * 4), and 0.
  assert objective.divergence(p, q) == objective.divergence(q, p) == 0.25
