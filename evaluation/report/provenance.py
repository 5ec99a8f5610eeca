"""The report's last sections: where its numbers come from."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from bmg.evaluation import numbers, travel
from bmg.evaluation.report import (
  collect,
  page,
  published,
  results,
  scores,
  text,
)


def provenance(found: results.Results) -> page.Section:
  """Revisions, versions and machines; where they differ; all runs."""
  body = []
  rows = []
  for label in found.collection.labels:
    runs = [run for run in found.collection.runs if run.label == label]
    rows.append(
      (
        label,
        _distinct(runs, _revision),
        _distinct(runs, _versions),
        _distinct(runs, lambda start: str(start.get('platform', ''))),
      )
    )
  body.append(
    page.table(('', 'revision', 'versions', 'platform'), rows, class_='words')
  )
  if found.collection.differences:
    body += [
      page.tag('h4', 'Where the runs of one label differ'),
      page.table(
        ('', 'field', 'value', 'runs'),
        [
          (d.label, d.field, value, text.plural(len(folders), 'run'))
          for d in found.collection.differences
          for value, folders in d.folders.items()
        ],
        class_='words',
      ),
    ]
  every = [s for score in found.game_scores for s in score.runs]
  body.append(
    page.details(
      f'All {text.plural(len(every), "run")}',
      page.table(
        (
          'folder',
          'label',
          'game',
          'seed',
          'frames done',
          'asked',
          'window',
          'score',
          'starts',
        ),
        [_run_row(score) for score in every],
      ),
    )
  )
  return page.Section('provenance', 'Provenance', page.join(body))


def conventions() -> page.Section:
  """What the numbers are, and how published ones were taken."""
  body = [
    page.paragraph(
      "A run's score is its mean training return between 190M and 200M frames "
      "(Flennerhag et al., 2022), and a game's the mean over its seeds. Of a "
      'run that was asked for fewer frames, the last 5 % of these stand in for '
      "the window: a score of that kind is not the paper's. It is the mean of "
      'the rows of learner.csv in the window, each of which is the mean of the '
      'last 100 training games, so that it reaches back by up to 100 games '
      'before the window. The last evaluation is that of evaluation.csv, on '
      "full games by the run's own protocol, and enters no statistic."
    ),
    page.paragraph(
      'Human-normalised: (score - random) / (human - random), with the table '
      'of Agent57 and MuZero, where random play scores 0.0 at Video Pinball; '
      'some use 16256.9. Medians and interquartile means hardly depend on it, '
      'means do: with 16256.9, published means come out up to 70 % higher.'
    ),
    page.paragraph(
      'Meta-parameters: a value is learned as low + (high - low) * '
      'sigmoid(logit). Its first and last value are those of the first and the '
      'last row of learner.csv, means over runs. Its travel is the logit at '
      'the end minus that at the start. The nominal step is the learning rate '
      'of the meta-optimiser, which it takes where all meta-gradients agree '
      'and none is small beside meta.epsilon. Each row has the share of it '
      "that one update took; of these, the median over a run's rows, and then "
      'the mean over runs. "Hardly moved" is what after '
      f'{travel.ENOUGH_UPDATES:,} updates or more is less than '
      f'{travel.LITTLE_TRAVEL} logits from where it started, with a share '
      f'below {100 * travel.SMALL_SHARE:.0f} %.'
    ),
    page.table(
      ('column', 'source', 'how the scores were taken'),
      [(c.name, c.source, c.convention) for c in published.COLUMNS.values()],
      class_='words',
    ),
  ]
  return page.Section('conventions', 'How to read the numbers', page.join(body))


def _run_row(score: scores.RunScore) -> Sequence[str]:
  run = score.run
  ends = f'{numbers.large(score.start)} to {numbers.large(score.end)}'
  return (
    page.tag('code', os.path.normpath(run.folder)),
    run.label,
    run.game,
    str(run.seed),
    numbers.large(run.frames_done),
    numbers.large(run.num_frames),
    ends if score.finished else f'so far: {ends}',
    text.score(score.value),
    str(len(run.starts)) if run.starts else 'not recorded',
  )


def _distinct(runs: Sequence[collect.Run], describe: Any) -> page.Markup:
  """Lists what the starts of some runs say, with the number of runs."""
  counts: dict[str, int] = {}
  for run in runs:
    said = dict.fromkeys(describe(start) for start in run.starts)
    for value in said or ('not recorded',):
      counts[value] = counts.get(value, 0) + 1
  return page.join(
    page.tag('div', f'{value} ({text.plural(number, "run")})')
    for value, number in counts.items()
  )


def _revision(start: Mapping[str, Any]) -> str:
  git = start.get('git')
  if not isinstance(git, Mapping):
    return 'not recorded'
  changed = ' with uncommitted changes' if git.get('dirty') else ''
  return f'{str(git.get("revision"))[:12]}{changed}'


def _versions(start: Mapping[str, Any]) -> str:
  packages = start.get('packages')
  versions = {'python': start.get('python')}
  if isinstance(packages, Mapping):
    versions |= packages
  return ', '.join(f'{k} {v}' for k, v in versions.items() if v)
