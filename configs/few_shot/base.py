"""The starting point of every recipe: all fields, and the paper's learners."""

import dataclasses
from typing import Any

import ml_collections

from bmg.configs.few_shot import schema

# What the paper compares: K of both, and L of BMG (section 6, appendix D).
INNER_UPDATES = (1, 5)
BOOTSTRAP_LENGTHS = (1, 5, 10)


def get_config() -> ml_collections.ConfigDict:
  """Returns every field of `schema.Study`; there are no learners yet."""
  return ml_collections.ConfigDict(schema.to_dict(schema.Study()))


def learners(**fields: Any) -> ml_collections.ConfigDict:
  """Returns MAML and BMG for each K and L, `maml_k1` to `bmg_k5_l10`.

  Args:
    **fields: of `schema.Learner`, for all of them.
  """
  group = ml_collections.ConfigDict()
  for K in INNER_UPDATES:
    maml = schema.Learner(
      kind='maml', inner_updates=K, bootstrap_length=1, **fields
    )
    group[f'maml_k{K}'] = dataclasses.asdict(maml)
    for L in BOOTSTRAP_LENGTHS:
      bmg = schema.Learner(
        kind='bmg', inner_updates=K, bootstrap_length=L, **fields
      )
      group[f'bmg_k{K}_l{L}'] = dataclasses.asdict(bmg)
  return group
