import jax
import jax.numpy as jnp
import numpy as np

from bmg.learner import publisher


def _publish(source, version, params):
  source.publish(publisher.Published(version, 10 * version, params))


def test_serves_the_newest_parameters_as_numpy():
  source = publisher.ParameterPublisher()
  assert source.get(-1) is None
  _publish(source, 0, {'w': jnp.zeros(3)})
  _publish(source, 2, {'w': jnp.arange(3.0)})
  version, num_frames, params = source.get(0)
  assert (version, num_frames) == (2, 20)
  assert type(params['w']) is np.ndarray
  np.testing.assert_array_equal(params['w'], [0, 1, 2])


def test_nothing_for_those_who_are_up_to_date():
  source = publisher.ParameterPublisher()
  _publish(source, 3, {'w': jnp.zeros(1)})
  assert source.get(3) is None
  assert source.get(2) is not None
  # The learner went back to a checkpoint: its parameters count, not those that
  # the actor has of a future that never came.
  assert source.get(9).version == 3


def test_the_copy_to_the_host_is_made_once_per_version():
  source = publisher.ParameterPublisher()
  _publish(source, 1, {'w': jnp.zeros(3)})
  first = source.get(0)
  assert source.get(-1).params['w'] is first.params['w']
  _publish(source, 2, {'w': jnp.ones(3)})
  assert source.get(1).params['w'][0] == 1


def test_a_step_that_reuses_the_memory_changes_nothing_published():
  source = publisher.ParameterPublisher()
  step = jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)
  params = {'w': jnp.zeros(100_000)}
  _publish(source, 1, params)
  held = source.get(0)
  for _ in range(10):
    params = step(params)
  np.testing.assert_array_equal(held.params['w'], 0)
  _publish(source, 2, params)
  for _ in range(10):
    params = step(params)
  # First asked for after the original is gone.
  np.testing.assert_array_equal(source.get(1).params['w'], 10)
  np.testing.assert_array_equal(held.params['w'], 0)


def test_parameters_that_are_not_finite_are_not_served():
  source = publisher.ParameterPublisher()
  _publish(source, 1, {'w': jnp.zeros(2)})
  assert source.get(0) is not None
  for bad in (jnp.nan, -jnp.inf):
    _publish(source, 2, {'w': jnp.array([0.0, bad])})
    assert source.get(1) is None
    assert source.get(1) is None
  _publish(source, 3, {'w': jnp.zeros(2)})
  assert source.get(1).version == 3
