"""The losses of the first updates on made-up experience, as JSON.

Usage: python benchmarks/step/first_losses.py RECIPE OVERRIDES UPDATES

`benchmarks.step.losses` runs this with the packages of one revision and of
another, so it asks them for little that could have changed. Its working
directory is the root of that revision's checkout.
"""

import importlib
import importlib.util
import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np

# Early revisions have no `bmg`, and one may be installed all the same.
_HOUSE = 'bmg.' if pathlib.Path('bmg').is_dir() else ''
types: Any = importlib.import_module(f'{_HOUSE}agents.types')
schema: Any = importlib.import_module(f'{_HOUSE}configs.schema')
training: Any = importlib.import_module(f'{_HOUSE}learner.training')

# Actions of the policy.
_NUM_ACTIONS = 6


def losses(config: Any, num_updates: int) -> dict[str, list[float]]:
  """Makes updates from the initial state; each has a batch of its own.

  Args:
    config: of a run.
    num_updates: steps of the learner.

  Returns:
    Every metric of the learner's, by update.
  """
  step = training.TrainStep(config, _NUM_ACTIONS, jax.devices()[:1])
  random = np.random.default_rng(config.seed)
  state = step.init(config.seed)
  result: dict[str, list[float]] = {}
  for _ in range(num_updates):
    state, metrics = step.step(state, step.put(_made_up(config, random)))
    for name, value in metrics.items():
      result.setdefault(name, []).append(float(value))
  return result


def _made_up(config: Any, random: np.random.Generator) -> Any:
  """Unrolls of noise: pixels, behaviour, a reward or an end now and then."""
  env, meta = config.env, config.meta
  spec = types.unroll_spec(
    config.actors.unroll_length, env.frame_stack, env.frame_shape, _NUM_ACTIONS
  )

  def unrolls(num_batches: int, size: int) -> Any:
    shape = (num_batches, size)
    filled = types.Unroll(
      *(np.zeros((*shape, *x.shape), x.dtype) for x in spec)
    )
    transitions = filled.actions.shape
    ends = random.random(transitions) < 0.02
    starts = np.zeros_like(filled.starts)
    # The frame that follows an end is the first of the next episode.
    starts[..., -transitions[-1] :] = ends
    return filled._replace(
      frames=random.integers(
        256, size=filled.frames.shape, dtype=filled.frames.dtype
      ),
      starts=starts,
      actions=random.integers(
        _NUM_ACTIONS, size=transitions, dtype=filled.actions.dtype
      ),
      rewards=random.choice(
        np.asarray([-1.0, 0.0, 0.0, 0.0, 1.0], np.float32), transitions
      ),
      discounts=1.0 - ends.astype(np.float32),
      behaviour_logits=random.normal(
        scale=0.1, size=filled.behaviour_logits.shape
      ).astype(np.float32),
    )

  # Revisions before meta-gradients through several updates know K alone.
  own = getattr(meta, 'updates_per_step', meta.inner_updates)
  size = config.replay.online_batch + config.replay.replay_batch
  return training.TrainBatch(
    unrolls(own, size),
    unrolls(meta.num_bootstrap_batches, meta.bootstrap_batch),
  )


def _load(recipe: str, overrides: dict[str, Any]) -> Any:
  spec = importlib.util.spec_from_file_location('recipe', recipe)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update_from_flattened_dict(overrides)
  return schema.from_config_dict(config)


if __name__ == '__main__':
  _recipe, _overrides, _num_updates = sys.argv[1:]
  _config = _load(_recipe, json.loads(_overrides))
  print(json.dumps(losses(_config, int(_num_updates))))
