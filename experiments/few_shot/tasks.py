"""Tasks, drawn at random: sinusoids to regress, images to tell apart.

A task is a support set to adapt to and a query set to validate on.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import images

SPLITS = images.SPLITS
_AMPLITUDES = (0.1, 5.0)
_PHASES = (0.0, jnp.pi)
_INPUTS = (-5.0, 5.0)


class Examples(NamedTuple):
  """Inputs with their labels."""

  # float32 [N, ...].
  inputs: jax.Array
  # int32 [N] of images, float32 [N, 1] of sinusoids.
  labels: jax.Array


class Task(NamedTuple):
  """One task."""

  support: Examples
  query: Examples


class Source(NamedTuple):
  """A distribution over tasks, in three splits."""

  # By split: the arrays that `sample` draws from.
  data: Mapping[str, Any]
  # (random key, arrays of a split) -> one task.
  sample: Callable[[jax.Array, Any], Task]
  input_shape: tuple[int, ...]
  num_outputs: int


def make_source(data: schema.Data, task: schema.Task) -> Source:
  """Returns the tasks that the configuration describes.

  Raises:
    DataError: images are missing, or are not what they should be.
  """
  if data.kind == 'sinusoid':
    return Source(
      dict.fromkeys(SPLITS),
      lambda key, _: sample_sinusoid(key, task),
      input_shape=(1,),
      num_outputs=1,
    )
  tables = images.load(data)
  images.check_sizes(tables, task)
  most = max(int(table.counts.max()) for table in tables.values())
  return Source(
    jax.device_put(tables),
    lambda key, table: sample_images(key, table, task, most),
    input_shape=tables['train'].images.shape[1:],
    num_outputs=task.num_ways,
  )


def sample_sinusoid(key: jax.Array, config: schema.Task) -> Task:
  """Draws amplitude, phase and points as MAML does (Finn et al., section 5.1).

  y = amplitude * sin(x - phase).
  """
  amplitude_key, phase_key, inputs_key = jax.random.split(key, 3)
  amplitude = jax.random.uniform(
    amplitude_key, minval=_AMPLITUDES[0], maxval=_AMPLITUDES[1]
  )
  phase = jax.random.uniform(phase_key, minval=_PHASES[0], maxval=_PHASES[1])
  count = config.num_support + config.num_query
  inputs = jax.random.uniform(
    inputs_key, (count, 1), minval=_INPUTS[0], maxval=_INPUTS[1]
  )
  labels = amplitude * jnp.sin(inputs - phase)
  return _split(Examples(inputs, labels), config.num_support)


def sample_images(
  key: jax.Array, table: images.ClassTable, config: schema.Task, most: int
) -> Task:
  """Draws classes, and different images of each; classes get random labels.

  Args:
    key: random key.
    table: the classes.
    config: how many classes and images to draw.
    most: no class has more images.

  Returns:
    A task whose examples are ordered by label; pixels lie in [0, 1].
  """
  classes_key, images_key = jax.random.split(key)
  classes = jax.random.choice(
    classes_key, len(table.counts), (config.num_ways,), replace=False
  )
  num_shots = config.num_support + config.num_query

  def choose(key: jax.Array, chosen: jax.Array) -> jax.Array:
    # As classes differ in size: the highest of random scores.
    scores = jax.random.uniform(key, (most,))
    exists = jnp.arange(most) < table.counts[chosen]
    _, which = jax.lax.top_k(jnp.where(exists, scores, -1.0), num_shots)
    return table.starts[chosen] + which

  keys = jax.random.split(images_key, config.num_ways)
  rows = jax.vmap(choose)(keys, classes)
  sets = [rows[:, : config.num_support], rows[:, config.num_support :]]
  examples = []
  for chosen in sets:
    pixels = table.images[chosen.reshape(-1)].astype(jnp.float32) / 255.0
    labels = jnp.repeat(jnp.arange(config.num_ways), chosen.shape[1])
    examples.append(Examples(pixels, labels))
  return Task(*examples)


def _split(examples: Examples, num_support: int) -> Task:
  return Task(
    jax.tree.map(lambda x: x[:num_support], examples),
    jax.tree.map(lambda x: x[num_support:], examples),
  )
