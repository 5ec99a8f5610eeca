"""Human-normalised Atari scores.

`atari_human_normalized.csv` holds, for each of the 57 games, the mean score of
a random policy and of a human tester, as tabulated by Agent57 (Badia et al.,
2020) and MuZero (Schrittwieser et al., 2020) and repeated by many since.
Published tables agree on all of them, but for the random score at Video
Pinball, which some give as 16256.9. Here it is 0.0: only then do the published
*means* over 57 games come out. Medians do not depend on it.
"""

import csv
import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

_PATH = pathlib.Path(__file__).with_name('atari_human_normalized.csv')

# Five games that tell most about all 57, Atari-5 (Aitchison et al., 2022), with
# their weights: log10(1 + median) over 57 games is about the weighted sum of
# log10(1 + score), human-normalised in percent and at least 0. The weights are
# refitted to its data.
ATARI5: Mapping[str, float] = {
  'battle_zone': 0.374,
  'double_dunk': 0.066,
  'name_this_game': 0.314,
  'phoenix': 0.133,
  'qbert': 0.076,
}


class Reference(NamedTuple):
  """Mean raw scores of a random policy and of a human tester."""

  random: float
  human: float


@functools.cache
def references() -> Mapping[str, Reference]:
  """Returns the reference scores of the 57 games, by ROM name."""
  with _PATH.open(newline='') as file:
    return {
      row['game']: Reference(float(row['random']), float(row['human']))
      for row in csv.DictReader(file)
    }


def human_normalized_score(game: str, score: float) -> float | None:
  """Returns (score - random) / (human - random), so that 1 is a human's.

  None if there is no reference for `game`, which is not one of the 57.
  """
  reference = references().get(game)
  if reference is None:
    return None
  return (score - reference.random) / (reference.human - reference.random)
