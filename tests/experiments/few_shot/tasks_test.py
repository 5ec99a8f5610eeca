import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import images, tasks


def _sample(source, split, count, seed=0):
  keys = jax.random.split(jax.random.key(seed), count)
  sample = jax.jit(jax.vmap(source.sample, (0, None)))
  return jax.device_get(sample(keys, source.data[split]))


def test_sinusoids_are_those_of_maml():
  source = tasks.make_source(
    schema.Data(kind='sinusoid'),
    schema.Task(num_ways=1, num_support=10, num_query=7),
  )
  drawn = _sample(source, 'train', 2000)
  assert drawn.support.inputs.shape == drawn.support.labels.shape
  assert drawn.support.inputs.shape == (2000, 10, *source.input_shape)
  assert drawn.query.inputs.shape == (2000, 7, 1)
  x = np.concatenate([drawn.support.inputs, drawn.query.inputs], axis=1)[..., 0]
  y = np.concatenate([drawn.support.labels, drawn.query.labels], axis=1)[..., 0]
  assert x.min() >= -5
  assert x.max() <= 5
  np.testing.assert_allclose(x.mean(), 0.0, atol=0.1)
  np.testing.assert_allclose(x.var(), 100 / 12, rtol=0.05)
  # y = a sin(x - phase) = a cos(phase) sin(x) - a sin(phase) cos(x).
  amplitudes, phases = [], []
  for inputs, labels in zip(x, y, strict=True):
    basis = np.stack([np.sin(inputs), -np.cos(inputs)], axis=1)
    fit, *_ = np.linalg.lstsq(basis, labels, rcond=None)
    np.testing.assert_allclose(basis @ fit, labels, atol=1e-4)
    amplitudes.append(np.hypot(*fit))
    phases.append(np.arctan2(fit[1], fit[0]))
  for values, low, high in ((amplitudes, 0.1, 5.0), (phases, 0.0, np.pi)):
    assert low - 1e-3 <= min(values) < low + 0.05
    assert high - 0.05 < max(values) <= high + 1e-3
    np.testing.assert_allclose(np.mean(values), (low + high) / 2, rtol=0.05)


def _table():
  """Classes of 4, 6 and 5 images; a pixel says class and number of an image."""
  counts = (4, 6, 5)
  return images.make_table(
    [
      np.full((count, 2, 2, 1), 10 * index, np.uint8)
      + np.arange(count, dtype=np.uint8)[:, None, None, None]
      for index, count in enumerate(counts)
    ]
  )


def test_images_of_a_task_are_different_and_labels_are_shuffled():
  config = schema.Task(num_ways=2, num_support=1, num_query=3)
  source = tasks.Source(
    {'train': jax.device_put(_table())},
    lambda key, table: tasks.sample_images(key, table, config, 6),
    (2, 2, 1),
    2,
  )
  drawn = _sample(source, 'train', 300)
  assert drawn.support.inputs.shape == (300, 2, 2, 2, 1)
  assert drawn.query.inputs.shape == (300, 6, 2, 2, 1)
  codes = lambda examples: np.rint(examples.inputs[..., 0, 0, 0] * 255)
  support, query = codes(drawn.support), codes(drawn.query)
  labels_of_class = [set(), set(), set()]
  seen = set()
  for i in range(300):
    together = [*support[i], *query[i]]
    assert len(set(together)) == 8
    seen |= set(together)
    classes = set()
    for label in (0, 1):
      mine = [
        *support[i][drawn.support.labels[i] == label],
        *query[i][drawn.query.labels[i] == label],
      ]
      assert len(mine) == 4
      (of_class,) = {int(code // 10) for code in mine}
      classes.add(of_class)
      labels_of_class[of_class].add(label)
    assert len(classes) == 2
  assert labels_of_class == [{0, 1}] * 3
  # Every image there is, and none that is not.
  assert seen == {0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24}


def test_digits_make_tasks_of_every_split():
  config = schema.Task(num_ways=5, num_support=1, num_query=5)
  source = tasks.make_source(schema.Data(kind='digits'), config)
  assert (source.input_shape, source.num_outputs) == ((8, 8, 1), 5)
  for split in tasks.SPLITS:
    drawn = _sample(source, split, 4)
    assert drawn.query.inputs.shape == (4, 25, 8, 8, 1)
    assert drawn.query.inputs.dtype == np.float32
    assert 0 <= drawn.query.inputs.min() < 0.1
    assert 0.9 < drawn.query.inputs.max() <= 1
    np.testing.assert_array_equal(drawn.support.labels[0], np.arange(5))


@pytest.mark.parametrize(
  ('task', 'words'),
  [
    (schema.Task(num_ways=4), r'num_ways = 4: the train split has only 3'),
    (schema.Task(num_ways=3, num_support=2, num_query=3), r'= 5: .*only 4'),
  ],
)
def test_tasks_that_cannot_be_drawn_are_refused(task, words):
  with pytest.raises(images.DataError, match=words):
    images.check_sizes({'train': _table()}, task)


def test_same_key_same_task():
  config = schema.Task(num_ways=1)
  first, second, other = (
    tasks.sample_sinusoid(jax.random.key(seed), config) for seed in (0, 0, 1)
  )
  assert jnp.array_equal(first.query.labels, second.query.labels)
  assert not jnp.array_equal(first.query.labels, other.query.labels)
