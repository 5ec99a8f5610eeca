"""The report's sections on single games, and on the meta-parameters."""

from collections.abc import Mapping, Sequence

import numpy as np

from bmg.evaluation import atari_scores, numbers
from bmg.evaluation.report import (
  collect,
  figures,
  overview,
  page,
  published,
  results,
  scores,
  text,
)


def score_table(found: results.Results) -> page.Section:
  """All scores, beside the published ones."""
  labels = found.collection.labels
  rows = []
  for game in found.collection.games:
    ours = found.of_game(game)
    rows.append(
      [
        page.tag('a', title(game), href=f'#game-{game}'),
        *(_score_cell(ours.get(label)) for label in labels),
        *_published_cells(game),
      ]
    )
  body = [
    page.paragraph(
      'Mean raw training return over seeds, in the window that the protocol '
      'names; below it human-normalised, and the number of seeds. ',
      page.tag('span', 'so far', class_='tag'),
      ' marks games of which no run has finished: the last 5 % of what has '
      'been done. Published scores are those of 200M frames.',
    ),
    page.table(
      ['', *labels, *(c.name for c in published.COLUMNS.values())], rows
    ),
  ]
  return page.Section('scores', 'Scores per game', page.join(body))


def published_table() -> page.Section:
  """The published scores of all games."""
  rows = [
    [title(game), *_published_cells(game)]
    for game in sorted(atari_scores.references())
  ]
  header = ['', *(c.name for c in published.COLUMNS.values())]
  return page.Section('scores', 'Scores per game', page.table(header, rows))


def cards(found: results.Results, look: figures.Looks) -> page.Section:
  """Learning curves, scores and meta-parameters of each game."""
  games = found.collection.games
  body = [
    overview.legend(look),
    page.paragraph(
      'Mean raw return of the last 100 training games over emulator frames. '
      'Thin: each seed; thick: their mean, as far as all have come; band: from '
      'the lowest seed to the highest; dotted: a human, where in range. The '
      'evaluation is the last one, mean over runs; done: frames, and finished '
      'runs.'
    ),
    page.tag('div', [_card(found, g, look) for g in games], class_='games'),
  ]
  return page.Section(
    'games',
    'Games',
    page.join(body),
    [(f'game-{game}', title(game)) for game in games],
  )


def meta_parameters(
  found: results.Results, look: figures.Looks
) -> page.Section:
  """The hyper-parameters over all games."""
  runs = {
    label: [run for run in found.collection.runs if run.label == label]
    for label in found.collection.labels
  }
  picture = figures.meta_parameters(runs, look, 'meta', columns=3)
  if not picture:
    body = page.paragraph('No run has recorded any.')
  else:
    body = page.join(
      [
        overview.legend(look),
        page.tag('figure', page.Markup(picture), class_='wide'),
        page.paragraph(
          'Mean over all games and seeds that have come so far, so that it '
          'jumps where a run ends, with the range of the main head; solid: the '
          'main head, dashed and dotted: the auxiliary heads. Where the '
          "agent does not learn them, they are its fixed values. Each game's "
          'own are under its learning curve.'
        ),
        *_travel_tables(runs),
      ]
    )
  return page.Section('meta', 'Meta-parameters', body)


def _travel_tables(
  runs: Mapping[str, Sequence[collect.Run]],
) -> list[page.Markup]:
  """How far the hyper-parameters came: the main head's, then the others'."""
  main: list[Sequence[str]] = []
  auxiliary: list[Sequence[str]] = []
  for label, group in runs.items():
    for column in dict.fromkeys(
      c for run in group for c in collect.meta_columns(run)
    ):
      rows = auxiliary if '_aux' in column else main
      rows.append(_travel_row(label, column, group))
  header = (
    '',
    'meta-parameter',
    'first value',
    'last value',
    'travel in logits',
    'median share of the nominal step',
    '',
  )
  body = [
    page.tag('h4', 'How far they moved'),
    page.paragraph(
      'Means over runs; below the travel, the lowest and the highest run. '
      'Where the share is nearly 0 %, the meta-gradient is small beside '
      'meta.epsilon, and nothing is learned. A dash: not learned, or not '
      'recorded. More under ',
      page.tag('a', 'How to read the numbers', href='#conventions'),
      '.',
    ),
    page.table(header, main),
  ]
  if auxiliary:
    body.append(page.details('Auxiliary heads', page.table(header, auxiliary)))
  return body


def _travel_row(
  label: str, column: str, runs: Sequence[collect.Run]
) -> Sequence[str]:
  curves = [
    found[1] for run in runs if (found := collect.series(run.learner, column))
  ]
  name = column.removeprefix('meta/')
  parameter, _, head = name.partition('_aux')
  shown = parameter.replace('_', ' ') + (f' (head {head})' if head else '')
  first, last = (
    f'{np.mean([values[end] for values in curves]):.4g}' for end in (0, -1)
  )
  travels = [run.travels[name] for run in runs if name in run.travels]
  if not travels:
    return label, shown, first, last, '-', '-', ''
  travel = [t.travel for t in travels]
  cell: list[str] = [f'{np.mean(travel):+.3f}']
  if len(travels) > 1:
    ends = f'{min(travel):+.3f} to {max(travel):+.3f}'
    cell.append(page.tag('small', ends))
  share = float(np.mean([t.share for t in travels]))
  return (
    label,
    shown,
    first,
    last,
    page.join(cell),
    _share(share),
    _still(travels),
  )


def _share(value: float) -> str:
  return '< 0.1 %' if value < 0.001 else text.percent(value)


def _still(travels: Sequence[collect.Travel]) -> page.Markup:
  """Marks what hardly moved, and in how many runs if not in all."""
  still = sum(t.hardly for t in travels)
  if not still:
    return page.Markup('')
  mark = 'hardly moved'
  if still < len(travels):
    mark += f' in {still} of {text.plural(len(travels), "run")}'
  return page.tag('span', mark, class_='tag')


def title(game: str) -> str:
  """Writes name_this_game as Name This Game."""
  return game.replace('_', ' ').title()


def _card(
  found: results.Results, game: str, look: figures.Looks
) -> page.Markup:
  runs = found.runs_of_game(game)
  curves = figures.learning_curves(game, runs, look, f'curve-{game}')
  meta = figures.meta_parameters(runs, look, f'meta-{game}', columns=2)
  rows = [
    (
      label,
      _with_range(score),
      _normalized(game, score.mean),
      _evaluation(score),
      _done(score),
    )
    for label, score in found.of_game(game).items()
  ]
  header = ('', 'score', 'of human', 'evaluation', 'done')
  return page.tag(
    'div',
    [
      page.tag('h3', title(game)),
      page.Markup(curves) or page.paragraph('No training game has ended yet.'),
      page.table(header, rows),
      page.details('Meta-parameters', page.Markup(meta)) if meta else '',
    ],
    class_='card',
    id=f'game-{game}',
  )


def _score_cell(score: scores.GameScore | None) -> page.Markup:
  if score is None or not score.used:
    return page.Markup('-')
  below = ', '.join(
    [_normalized(score.game, score.mean), f'n = {len(score.used)}']
  )
  return page.join(
    [
      page.tag('span', 'so far', class_='tag') if not score.finished else '',
      text.score(score.mean),
      page.tag('small', below),
    ]
  )


def _published_cells(game: str) -> Sequence[page.Markup]:
  cells = []
  for key in published.COLUMNS:
    value = published.scores()[key].get(game)
    if value is None:
      cells.append(page.Markup('-'))
      continue
    below = page.tag('small', _normalized(game, value))
    cells.append(page.join([text.score(value), below]))
  return cells


def _normalized(game: str, value: float) -> str:
  normalized = atari_scores.human_normalized_score(game, value)
  return '-' if normalized is None else text.percent(normalized)


def _with_range(score: scores.GameScore) -> page.Markup:
  values = score.values
  if not len(values):
    return page.Markup('-')
  parts: list[str] = [text.score(score.mean)]
  if not score.finished:
    parts.insert(0, page.tag('span', 'so far', class_='tag'))
  if len(values) > 1:
    ends = (numbers.large(value) for value in (values.min(), values.max()))
    parts.append(page.tag('small', ' to '.join(ends)))
  return page.join(parts)


def _evaluation(score: scores.GameScore) -> page.Markup:
  last = score.evaluation
  if last is None:
    return page.Markup('-')
  note = f'at {numbers.large(last.num_frames)}'
  return page.join([text.score(last.value), page.tag('small', note)])


def _done(score: scores.GameScore) -> page.Markup:
  runs: Sequence[collect.Run] = [s.run for s in score.runs]
  whole = sum(s.finished for s in score.runs)
  shares = [min(run.frames_done / run.num_frames, 1.0) for run in runs]
  return page.join(
    [
      f'{100.0 * float(np.mean(shares)):.0f} %',
      page.tag('small', f'{whole}/{len(runs)}'),
    ]
  )
