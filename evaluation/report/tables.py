"""The report's tables as CSV: one of games, one of statistics."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bmg.evaluation import atari_scores
from bmg.evaluation.report import aggregate, collect, published, results, scores

Row = Mapping[str, object]


def games(found: results.Results) -> str:
  """Returns a row for each label and game that there is a run of."""
  return _csv([_game_row(score) for score in found.game_scores])


def aggregates(
  own: Iterable[results.Aggregate],
  common: Iterable[results.Aggregate],
  improvements: Iterable[results.Improvement],
) -> str:
  """Returns a row for each statistic; human-normalised, 1 is a human's."""
  rows = []
  for games_of, group in (('own', own), ('common', common)):
    for a in group:
      head: dict[str, object] = {
        'label': a.label,
        'kind': 'published' if a.is_published else 'runs',
        'games_of': games_of,
        'num_games': len(a.scores),
        'num_runs': a.num_runs,
        'finished': a.finished,
        'full_length': a.full_length,
      }
      for name in aggregate.STATISTICS:
        rows.append({**head, 'statistic': name, **_bounds(a.statistics[name])})
      if a.atari5 is not None:
        name = 'median_57_estimated_from_atari5'
        rows.append({**head, 'statistic': name, 'value': a.atari5})
  for i in improvements:
    rows.append(
      {
        'label': i.label,
        'kind': 'runs',
        'games_of': 'common',
        'num_games': i.num_games,
        'statistic': 'probability_of_improvement',
        'over': i.other,
        **_bounds(i.estimate),
      }
    )
  return _csv(rows)


def published_games() -> str:
  """Returns a row for each of the 57 games, with the published scores."""
  return _csv(
    [
      {'game': game, **_references(game)}
      for game in sorted(atari_scores.references())
    ]
  )


def _game_row(score: scores.GameScore) -> Row:
  values = score.values
  normalized = scores.human_normalized(score.game, values)
  runs = [s.run for s in score.runs]
  row: dict[str, object] = {
    'label': score.label,
    'game': score.game,
    'runs': len(runs),
    'runs_finished': sum(s.finished for s in score.runs),
    'seeds': ' '.join(str(run.seed) for run in runs),
    'frames_asked': max(run.num_frames for run in runs),
    'frames_done_min': min(run.frames_done for run in runs),
    'frames_done_max': max(run.frames_done for run in runs),
    'finished': score.finished,
    'full_length': score.full_length,
    'runs_scored': len(values),
  }
  if len(values):
    row |= {
      'window_start': min(s.start for s in score.used),
      'window_end': max(s.end for s in score.used),
      'score_mean': score.mean,
      'score_min': values.min(),
      'score_max': values.max(),
    }
  if len(values) > 1:
    row['score_sd'] = statistics.stdev(values.tolist())
  if len(values) and normalized is not None:
    row['human_normalized'] = normalized.mean()
  if score.evaluation is not None:
    last = score.evaluation
    row |= {
      'evaluation_mean': last.value,
      'evaluation_runs': last.num_runs,
      'evaluation_frames': last.num_frames,
    }
    value = atari_scores.human_normalized_score(score.game, last.value)
    if value is not None:
      row['evaluation_human_normalized'] = value
  row |= _references(score.game)
  for column in dict.fromkeys(c for r in runs for c in collect.meta_columns(r)):
    row[f'last {column}'] = last_mean(runs, column)
  for name in dict.fromkeys(name for run in runs for name in run.travels):
    travels = [run.travels[name] for run in runs if name in run.travels]
    row[f'last travel/{name}'] = float(np.mean([t.travel for t in travels]))
    row[f'median step/{name}'] = float(np.mean([t.share for t in travels]))
  return row


def last_mean(runs: Sequence[collect.Run], column: str) -> float:
  """Mean over runs of the last value of a column."""
  last = [
    found[1][-1] for r in runs if (found := collect.series(r.learner, column))
  ]
  return float(np.mean(last)) if last else np.nan


def _references(game: str) -> Row:
  row: dict[str, object] = {}
  reference = atari_scores.references().get(game)
  if reference is not None:
    row |= {'random': reference.random, 'human': reference.human}
  for key in published.COLUMNS:
    value = published.scores()[key].get(game)
    if value is not None:
      row[key] = value
  return row


def _bounds(estimate: aggregate.Estimate) -> Row:
  row: dict[str, object] = {'value': estimate.value}
  if not np.isnan(estimate.low):
    row |= {'low': estimate.low, 'high': estimate.high}
  return row


def _csv(rows: Sequence[Row]) -> str:
  """Writes rows under all columns that any of them has."""
  columns = list(dict.fromkeys(key for row in rows for key in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator='\n')
  writer.writeheader()
  for row in rows:
    writer.writerow({key: _plain(value) for key, value in row.items()})
  return text.getvalue()


def _plain(value: object) -> object:
  """Ten digits: less noise than all, and more than anyone needs."""
  if isinstance(value, float):
    return '' if np.isnan(value) else f'{value:.10g}'
  return int(value) if isinstance(value, bool) else value
