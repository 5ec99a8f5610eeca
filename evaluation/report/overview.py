"""The report's sections on statistics over games, of runs and published."""

from collections.abc import Iterable, Sequence

from bmg.evaluation.report import (
  aggregate,
  figures,
  page,
  published,
  results,
  text,
)

_STATISTICS_HEADER = (
  '',
  'over',
  'runs',
  'median',
  'mean',
  'interquartile mean',
  'optimality gap',
)


def statistics(found: results.Results, look: figures.Looks) -> page.Section:
  """Human-normalised statistics of all labels, and their curves."""
  body = [
    page.paragraph(
      "100 % is a human's score, 0 % that of random play. Median and mean are "
      'over games, of means over seeds; the interquartile mean is that of the '
      'middle half of all runs; the optimality gap is by how much runs miss a '
      "human's score on average. Below each: its 95 % interval by stratified "
      'bootstrap over seeds (rliable). It speaks of other seeds, not of other '
      'games; a game with one seed adds nothing to its width.'
    ),
    *_partial_warning(found.aggregates),
    statistics_table(found.aggregates),
  ]
  if not found.aggregates:
    body.append(
      page.paragraph('No run has a score at one of the 57 games yet.')
    )
  if found.common:
    number = len(found.common[0].scores)
    body += [
      page.tag('h4', f'Only the games that all labels have: {number}'),
      statistics_table(found.common),
    ]
  body.append(_atari5(found.aggregates))
  picture, num_games = figures.median_curves(found.best_runs, look, 'median')
  if picture:
    over = ', '.join(f'{label}: {n}' for label, n in num_games.items())
    body += [
      page.tag('h4', 'Median over games of training return'),
      legend(look),
      _figure(
        picture,
        'Human-normalised. Of a label with finished runs: these; else all, as '
        'far as all of them have come. Band: standard deviation over seeds, '
        f'where all games have equally many. Games in the median: {over}.',
      ),
    ]
  if found.improvements:
    body += [
      page.tag('h4', 'Probability of improvement'),
      page.paragraph(
        'How probably a run of the one scores higher than a run of the other, '
        'mean over the games that both have.'
      ),
      page.table(
        ('', 'than', 'games', 'probability', '95 % interval'),
        [
          (
            i.label,
            i.other,
            str(i.num_games),
            text.percent(i.estimate.value),
            text.interval(i.estimate) or '-',
          )
          for i in found.improvements
        ],
      ),
    ]
  return page.Section('statistics', 'Human-normalised', page.join(body))


def comparison(found: results.Results) -> page.Section:
  """Published numbers beside the runs', over the same games and over all."""
  body = []
  groups: dict[frozenset[str], dict[str, results.Aggregate]] = {}
  for a in [*found.first, *found.common]:
    groups.setdefault(frozenset(a.scores), {})[a.label] = a
  for games, by_label in groups.items():
    ours = list(by_label.values())
    others = results.published_aggregates(games)
    title = (
      f'All {aggregate.NUM_GAMES} games'
      if len(games) == aggregate.NUM_GAMES
      else f'Only the games of the runs: {len(games)}'
    )
    body.append(page.tag('h4', title))
    if not all(a.full_length for a in ours):
      body.append(
        page.warning(
          'The published scores are those of 200M frames; the runs here had '
          'fewer, or are not finished. This is no comparison of agents.'
        )
      )
    body.append(statistics_table([*ours, *others]))
  qualified = [a for a in found.aggregates if a.all_games and a.full_length]
  body += _headlines(qualified, bool(found.aggregates))
  return page.Section('published', 'Beside published scores', page.join(body))


def published_only() -> page.Section:
  """The published numbers alone."""
  body = [
    page.tag(
      'h4', f'Recomputed from the scores of {aggregate.NUM_GAMES} games'
    ),
    statistics_table(results.published_aggregates()),
    _atari5(results.published_aggregates()),
    *_headlines([], False),
  ]
  return page.Section('published', 'Published scores', page.join(body))


def legend(look: figures.Looks) -> page.Markup:
  """Says which line is whose."""
  dashes = {'-': '', '--': '6 3', ':': '1.5 2.5', '-.': '6 2 1.5 2'}
  entries = []
  for label, style in look.items():
    line = page.tag(
      'line',
      x1='0',
      y1='3',
      x2='22',
      y2='3',
      stroke=style['color'],
      stroke_width='2.5',
      stroke_dasharray=dashes[style['linestyle']],
    )
    picture = page.tag('svg', line, viewBox='0 0 22 6')
    entries.append(page.tag('span', [picture, label]))
  return page.tag('div', entries, class_='legend')


def statistics_table(aggregates: Iterable[results.Aggregate]) -> page.Markup:
  """Returns a row for each; says of how many games a median is."""
  rows = []
  for a in aggregates:
    games = text.plural(len(a.scores), 'game')
    over = games if a.all_games else page.tag('span', games, class_='tag')
    name: str = a.label
    if not a.finished:
      mark = page.tag('span', 'some unfinished', class_='tag')
      name = page.join([a.label, mark])
    cells = [_estimate(a.statistics[name]) for name in aggregate.STATISTICS]
    runs = 'published' if a.is_published else str(a.num_runs)
    rows.append((name, over, runs, *cells))
  return page.table(_STATISTICS_HEADER, rows) if rows else page.Markup('')


def _estimate(estimate: aggregate.Estimate) -> page.Markup:
  interval = text.interval(estimate)
  return page.join(
    [
      text.percent(estimate.value),
      page.tag('small', interval) if interval else '',
    ]
  )


def _figure(picture: str, caption: str) -> page.Markup:
  return page.tag(
    'figure',
    [page.Markup(picture), page.tag('figcaption', caption)],
    class_='wide',
  )


def _partial_warning(
  aggregates: Sequence[results.Aggregate],
) -> list[page.Markup]:
  partial = [a for a in aggregates if not a.all_games]
  if not partial:
    return []
  message = (
    f'A median over fewer than {aggregate.NUM_GAMES} games is another quantity '
    f'than that over {aggregate.NUM_GAMES}, which papers report: do not '
    'compare the two.'
  )
  if len({frozenset(a.scores) for a in aggregates}) > 1:
    message += ' Nor are the rows of this table over the same games.'
  return [page.warning(message)]


def _atari5(aggregates: Iterable[results.Aggregate]) -> page.Markup:
  rows = [
    (
      a.label,
      page.join(
        [text.percent(a.atari5), page.tag('span', 'estimate', class_='tag')]
      ),
      text.percent(a.statistics['median'].value) if a.all_games else '-',
    )
    for a in aggregates
    if a.atari5 is not None
  ]
  if not rows:
    return page.Markup('')
  return page.join(
    [
      page.tag('h4', 'Median over 57 games as estimated from five'),
      page.paragraph(
        'From Battle Zone, Double Dunk, Name This Game, Phoenix and Q*bert, by '
        'a regression on the data of Atari-5 (Aitchison et al., 2022; weights '
        "refitted, not the paper's). For trends only: for the published agents "
        'of this report it is off by up to a quarter.'
      ),
      page.table(('', 'estimate', 'median over 57 games'), rows),
    ]
  )


def _headlines(
  qualified: Sequence[results.Aggregate], has_runs: bool
) -> list[page.Markup]:
  games = aggregate.NUM_GAMES
  body = [page.tag('h4', f'Published medians over {games} games, 200M frames')]
  if has_runs and not qualified:
    body.append(
      page.warning(
        f'No label has finished runs of 200M frames at all {games} games, so '
        'none is in this table, and no median above may be held against it.'
      )
    )
  rows: list[Sequence[str]] = [
    (
      a.label,
      text.percent(a.statistics['median'].value),
      'measured here',
      'mean training return between 190M and 200M frames, '
      f'{text.span(len(s) for s in a.scores.values())} seeds',
    )
    for a in qualified
  ]
  rows += [
    (h.agent, text.unbroken(f'{h.median} %'), h.certainty, h.convention)
    for h in published.HEADLINES
  ]
  header = ('agent', 'median', 'how certain', 'how the scores were taken')
  body.append(page.table(header, rows, class_='words'))
  body.append(
    page.paragraph(
      'The scores per game of STACX and BMG are not known here. A number that '
      'was recalled or read second-hand is no more than a mark to aim at.'
    )
  )
  return body
