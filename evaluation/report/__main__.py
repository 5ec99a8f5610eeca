"""Reports on runs of Atari: `python -m bmg report RUN... --out=FOLDER`.

A RUN is a run's folder, a folder that holds runs (a sweep), or
LABEL=FOLDER,FOLDER,... of such folders. Runs with one label are one agent: of
each game, they are its seeds. Writes one page and two tables:

  python -m bmg report bmg=runs/bmg none=runs/none --out=report
  python -m bmg report --published --out=report
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from bmg.evaluation import read
from bmg.evaluation.report import (
  collect,
  figures,
  games,
  overview,
  page,
  progress,
  provenance,
  results,
  tables,
)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status."""
  args = _parse(argv)
  try:
    if args.published:
      files = published_report()
    else:
      files = report(collect.collect(args.runs, args.group))
    _write(args.out, files)
  except (read.RecordsError, OSError) as error:
    print(f'bmg report: {error}', file=sys.stderr)
    return 2
  for name in files:
    print(os.path.join(args.out, name))
  return 0


def report(collection: collect.Collection) -> dict[str, str]:
  """Returns the files of a report on runs, by name."""
  found = results.compute(collection)
  look = figures.looks(collection.labels)
  labels = ', '.join(collection.labels)
  sections = [
    progress.progress(found),
    overview.statistics(found, look),
    overview.comparison(found),
    games.score_table(found),
    games.cards(found, look),
    games.meta_parameters(found, look),
    provenance.provenance(found),
    provenance.conventions(),
  ]
  return {
    'report.html': page.document(f'Atari: {labels}', _made(), sections),
    'games.csv': tables.games(found),
    'aggregates.csv': tables.aggregates(
      found.aggregates, found.common, found.improvements
    ),
  }


def published_report() -> dict[str, str]:
  """Returns the files of a report on the published scores alone, by name."""
  sections = [
    overview.published_only(),
    games.published_table(),
    provenance.conventions(),
  ]
  return {
    'report.html': page.document('Atari: published', _made(), sections),
    'games.csv': tables.published_games(),
    'aggregates.csv': tables.aggregates(results.published_aggregates(), (), ()),
  }


def entry() -> None:
  """The command `bmg report`."""
  sys.exit(main())


def _made() -> page.Markup:
  now = time.strftime('%Y-%m-%d %H:%M %z')
  return page.tag('p', f'Made by bmg report at {now}.', class_='muted')


def _write(folder: str, files: dict[str, str]) -> None:
  os.makedirs(folder, exist_ok=True)
  for name, content in files.items():
    path = os.path.join(folder, name)
    temporary = f'{path}.tmp'
    with open(temporary, 'w', encoding='utf-8') as file:
      file.write(content)
    # Whoever has the page open sees the old one or the new one.
    os.replace(temporary, path)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='bmg report',
    description='Reports on runs of Atari: curves, scores, statistics.',
    epilog='Example: bmg report bmg=runs/bmg none=runs/none --out=report',
  )
  parser.add_argument(
    'runs',
    nargs='*',
    metavar='RUN',
    help='a run folder, a folder of runs, or LABEL=FOLDER,FOLDER,...',
  )
  parser.add_argument('--out', default='report', help='folder to write to')
  parser.add_argument(
    '--group',
    metavar='FIELD',
    help='label runs without a label by a field of their configuration, or by '
    'their variant (default: variant in a sweep of variants, else meta.mode)',
  )
  parser.add_argument(
    '--published',
    action='store_true',
    help='report on the published scores alone, without any run',
  )
  args = parser.parse_args(argv)
  if bool(args.runs) == args.published:
    parser.error('give either runs or --published')
  return args


if __name__ == '__main__':
  entry()
