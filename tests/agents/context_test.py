"""The context's order, and its normalisation against plain NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from bmg.agents import context


def _after(observations, length, decay=0.9):
  state = context.initial(length, len(observations[0]))
  for statistics in observations:
    state = context.append(state, jnp.asarray(statistics, jnp.float32), decay)
  return state


def test_keeps_the_last_ones_oldest_first():
  rows = [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]]
  np.testing.assert_array_equal(_after(rows, 3).history, rows[1:])
  np.testing.assert_array_equal(
    _after(rows[:1], 3).history, [[0.0, 0.0], [0.0, 0.0], [1.0, 10.0]]
  )


@pytest.mark.parametrize('decay', [0.0, 0.5, 0.99])
@pytest.mark.parametrize('num_seen', [1, 4, 30])
def test_each_statistic_is_measured_by_its_usual_size(decay, num_seen):
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(num_seen, 3)) * [0.1, 1.0, 50.0]
  # The newest has the weight 1, the one before `decay`, and so on.
  weights = decay ** np.arange(num_seen)[::-1].astype(float)
  mean_square = np.average(rows**2, axis=0, weights=weights)
  history = np.concatenate([np.zeros((5, 3)), rows])[-5:]
  expected = np.tanh(history / np.sqrt(mean_square)).reshape(-1)
  actual = context.features(_after(rows, 5, decay))
  assert actual.shape == (15,)
  np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


def test_features_are_bounded_whatever_comes():
  rng = np.random.default_rng(1)
  rows = rng.standard_cauchy(size=(50, 2)) * [1.0, 1e6]
  features = np.asarray(context.features(_after(rows, 50)))
  assert np.all(np.abs(features) <= 1.0)
  assert np.max(np.abs(features)) > 0.9


def test_no_history_and_a_history_of_zeros_give_zeros():
  np.testing.assert_array_equal(
    context.features(context.initial(4, 2)), np.zeros(8)
  )
  np.testing.assert_array_equal(
    context.features(_after([[0.0, 0.0]] * 3, 4)), np.zeros(8)
  )
