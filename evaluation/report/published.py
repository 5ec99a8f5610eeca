"""Published scores, with how each was taken and how certain it is.

`evaluation/atari57_published.csv` holds raw scores per game at 200M frames:
IMPALA's two agents (Espeholt et al., 2018, table C.1), LASER's two (Schmitt et
al., 2019), and Rainbow's as LASER's authors repeat them; the last two by way of
the data files of Atari-5 (Aitchison et al., 2022). No table per game is known
here for STACX (Zahavy et al., 2020) or BMG (Flennerhag et al., 2022).
"""

import csv
import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

_PATH = pathlib.Path(__file__).parents[1] / 'atari57_published.csv'


class Column(NamedTuple):
  """An agent whose score at each game has been published."""

  name: str
  source: str
  # How the scores were taken.
  convention: str


COLUMNS: Mapping[str, Column] = {
  'impala_shallow_200m': Column(
    'IMPALA shallow',
    'Espeholt et al., 2018, table C.1',
    'after 200M frames, one agent per game; up to 30 no-ops, a game ends '
    'when a life is lost in training',
  ),
  'impala_deep_200m': Column(
    'IMPALA deep',
    'Espeholt et al., 2018, table C.1',
    'after 200M frames, one agent per game; up to 30 no-ops, a game ends '
    'when a life is lost in training',
  ),
  'laser_single_agent_200m': Column(
    'LASER single',
    'Schmitt et al., 2019, through Atari-5',
    'mean of the last 100 games before 200M frames; random no-op start, '
    'games of at most 30 minutes',
  ),
  'laser_shared_replay_200m': Column(
    'LASER shared',
    'Schmitt et al., 2019, through Atari-5',
    'mean of the last 100 games before 200M frames, replay shared between '
    'agents; random no-op start, games of at most 30 minutes',
  ),
  'rainbow_200m': Column(
    'Rainbow',
    'as repeated by Schmitt et al., 2019, through Atari-5',
    'at 200M frames. Whether of the last games or of the best snapshot of a '
    'run, the source at hand does not say; best of run would be higher than '
    'a mean of last games',
  ),
}


class Headline(NamedTuple):
  """A published median over the 57 games, human-normalised, at 200M frames."""

  agent: str
  # In percent, as it was printed.
  median: str
  certainty: str
  convention: str


_RECALLED = 'recalled from the paper, not re-checked against its text'
_PAPER = (
  'mean training return between 190M and 200M frames, 3 seeds, one agent per '
  'game'
)
HEADLINES = (
  Headline(
    'IMPALA deep',
    '191.8',
    'published; recomputed from the scores per game: 191.8',
    'after 200M frames',
  ),
  Headline(
    'Rainbow',
    '231',
    'published; recomputed from the scores per game: 231.0',
    'last games or best of run: not said in the source at hand',
  ),
  Headline(
    'IMPALA, as the baseline of STACX',
    '243',
    'published (abstract of Zahavy et al., 2020)',
    'at 200M frames; its window is not known here',
  ),
  Headline(
    'Meta-gradients of discount and lambda (Xu et al., 2018)',
    '287',
    'published, read second-hand (Muesli, table 2)',
    'at 200M frames; its window is not known here',
  ),
  Headline(
    'STACX',
    '364',
    'published (abstract of Zahavy et al., 2020)',
    'at 200M frames; its window is not known here',
  ),
  Headline(
    'STACX, as re-implemented by the authors of BMG',
    'about 350',
    _RECALLED,
    _PAPER,
  ),
  Headline(
    'LASER single',
    '431',
    'published; recomputed from the scores per game: 454.9, another number',
    'mean of the last 100 games before 200M frames',
  ),
  Headline(
    'LASER shared',
    '448',
    'published; recomputed from the scores per game: 412.4, another number',
    'mean of the last 100 games before 200M frames',
  ),
  Headline('BMG, L = 1, KL', 'about 500', _RECALLED, _PAPER),
  Headline('BMG, L = 1, KL & V', 'about 520', _RECALLED, _PAPER),
  Headline(
    'BMG, L = 4, KL & V',
    'about 610',
    'stated in the paper, read second-hand',
    _PAPER,
  ),
)


@functools.cache
def scores() -> Mapping[str, Mapping[str, float]]:
  """Raw scores by column and game."""
  with _PATH.open(newline='') as file:
    rows = list(csv.DictReader(file))
  return {
    column: {row['game']: float(row[column]) for row in rows}
    for column in COLUMNS
  }
