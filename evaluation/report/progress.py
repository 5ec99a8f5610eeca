"""The report's first section: how much of the runs there is."""

from collections.abc import Sequence

from bmg.evaluation import atari_scores, numbers
from bmg.evaluation.report import (
  aggregate,
  collect,
  page,
  results,
  scores,
  text,
)


def progress(found: results.Results) -> page.Section:
  """Says how much of the runs there is, and what is odd about them."""
  rows = []
  notes: list[str] = list(found.collection.warnings)
  for label in found.collection.labels:
    runs = [run for run in found.collection.runs if run.label == label]
    ours = [score for score in found.game_scores if score.label == label]
    done = sum(min(run.frames_done, run.num_frames) for run in runs)
    asked = sum(run.num_frames for run in runs)
    whole = sum(s.finished for score in ours for s in score.runs)
    missing = _missing_games(runs)
    rows.append(
      (
        label,
        f'{aggregate.NUM_GAMES - len(missing)} of {aggregate.NUM_GAMES}',
        text.span(len(score.runs) for score in ours),
        f'{whole} of {len(runs)}',
        f'{numbers.large(done)} of {numbers.large(asked)} '
        f'({100.0 * done / asked:.1f} %)',
        _frames_each(runs),
      )
    )
    if missing:
      notes.append(_say_missing(label, missing))
    notes += _say_unscored(label, ours, len(runs) - whole)
  notes += [
    _say_difference(d) for d in found.collection.differences if d.matters
  ]
  body = [
    page.table(
      (
        '',
        'games',
        'seeds per game',
        'runs finished',
        'frames done',
        'frames per run',
      ),
      rows,
    )
  ]
  if notes:
    body.append(
      page.warning(
        page.tag('strong', 'Mind:'),
        page.tag('ul', [page.tag('li', note) for note in notes]),
      )
    )
  return page.Section('progress', 'How far the runs are', page.join(body))


def _missing_games(runs: Sequence[collect.Run]) -> list[str]:
  return sorted(atari_scores.references().keys() - {r.game for r in runs})


def _say_missing(label: str, missing: Sequence[str]) -> page.Markup:
  return page.join(
    [
      f'{label}: {text.plural(len(missing), "game")} of '
      f'{aggregate.NUM_GAMES} missing.',
      page.details('Which', page.paragraph(', '.join(missing))),
    ]
  )


def _say_unscored(
  label: str, ours: Sequence[scores.GameScore], unfinished: int
) -> list[str]:
  notes = []
  if unfinished:
    notes.append(
      f'{label}: {text.plural(unfinished, "run")} not finished. Where a game '
      'has a finished run, only finished ones count; where it has none, each '
      'counts by the last 5 % of what it has done.'
    )
  left_out = [
    f'{s.run.game} (seed {s.run.seed})'
    for score in ours
    for s in score.runs
    if s.value != s.value
  ]
  if left_out:
    notes.append(
      f'{label}: no training game has ended in the window that scores '
      f'{", ".join(left_out)}, so there is no score.'
    )
  without = sorted(
    {s.game for s in ours if s.game not in atari_scores.references()}
  )
  if without:
    notes.append(
      f'{label}: not among the 57 games, and so without a human-normalised '
      f'score: {", ".join(without)}.'
    )
  return notes


def _say_difference(difference: collect.Difference) -> str:
  values = '; '.join(
    f'{value} in {folders[0]}'
    + (f' and {text.plural(len(folders) - 1, "other")}' if folders[1:] else '')
    for value, folders in difference.folders.items()
  )
  return (
    f'{difference.label}: its runs differ in {difference.field}: {values}. '
    'They are counted as one agent all the same.'
  )


def _frames_each(runs: Sequence[collect.Run]) -> str:
  asked = sorted({run.num_frames for run in runs})
  ends = dict.fromkeys(numbers.large(n) for n in (asked[0], asked[-1]))
  return ' to '.join(ends)
