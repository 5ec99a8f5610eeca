"""Does meta-learning make up for a wrong hyper-parameter?

  python -m bmg sweep --config=configs/studies/bad_starts.py --variants=all \
      --games=crazy_climber --seeds=3 --workdir=runs/bad_starts

A variant is a start and a method. A start has one hyper-parameter wrong, as a
user might have it. With fixed hyper-parameters it stays wrong; meta-learning
begins with it. The plain objective, which grounds the target of `bmg` and is
the outer loss of `mg`, is that of the recipe all the same: as in the paper, it
says what is wanted, and is not tuned.
"""

import ml_collections

from bmg.configs.studies import methods

# Field, and its wrong value. The entropy weight is 0.01 in the recipe.
STARTS: dict[str, tuple[str, float] | None] = {
  'good': None,
  'entropy_high': ('entropy_weight', 0.1),
  'entropy_low': ('entropy_weight', 0.001),
  'discount_low': ('discount', 0.9),
  'lambda_low': ('trace_lambda', 0.5),
}
METHODS = ('none', 'mg', 'bmg')
VARIANTS = tuple(f'{start}-{method}' for start in STARTS for method in METHODS)


def get_config(variant: str = 'good-bmg') -> ml_collections.ConfigDict:
  """Returns the configuration of a start and a method: 3 M frames of a game."""
  start, method = variant.split('-')
  config = methods.get_agent(method)
  config.num_frames = 3_000_000
  config.evaluator.period_frames = 3_000_000
  wrong = STARTS[start]
  if wrong is not None:
    name, value = wrong
    parameter = config.meta.parameters[name]
    if method == 'none':
      parameter.fixed = value
    else:
      parameter.initial = value
      if value >= parameter.high:
        parameter.high = 2 * value
  return config
