import csv
import html.parser
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import textpath

from bmg.evaluation import atari_scores, numbers
from bmg.evaluation.report import __main__ as report
from bmg.evaluation.report import aggregate, figures, page, results, text
from tests.evaluation.report import fake_runs


class _Loads(html.parser.HTMLParser):
  """Finds what a browser would fetch, or run."""

  def __init__(self):
    super().__init__()
    self.found = []

  def handle_starttag(self, tag, attributes):
    if tag in ('script', 'link', 'iframe', 'object', 'embed', 'base'):
      self.found.append(tag)
    for name, value in attributes:
      inside = name in ('href', 'xlink:href') and value.startswith('#')
      loads = name in ('src', 'srcset', 'href', 'xlink:href', 'data', 'poster')
      if (loads and not inside) or name.startswith('on'):
        self.found.append((tag, name, value))


def _check_page(text):
  """It is well-formed, loads nothing, and its links lead somewhere."""
  loads = _Loads()
  loads.feed(text)
  assert loads.found == []
  for reference in re.findall(r'url\(([^)]*)\)|@import', text):
    assert reference.startswith('#')
  prolog, _, root = text.partition('\n')
  assert prolog == '<!DOCTYPE html>'
  tree = ElementTree.fromstring(root)
  names = [e.attrib['id'] for e in tree.iter() if 'id' in e.attrib]
  assert len(names) == len(set(names))
  for reference in re.findall(r'(?:href="|url\()#([^")]+)', text):
    assert reference in names
  return tree


def _rows(path):
  return list(csv.DictReader(io.StringIO(path.read_text())))


def _words(tree):
  return re.sub(r'\s+', ' ', ' '.join(tree.itertext()))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """The report on a sweep that is under way, of an odd label and two games."""
  folder = tmp_path_factory.mktemp('runs')
  fake_runs.make(folder / 'a' / '1')  # Pong: 2.0
  fake_runs.make(folder / 'a' / '2', seed=2, returns=((1000, 4.0),))
  fake_runs.make(folder / 'a' / '3', seed=3, returns=((300, 50.0),))
  fake_runs.make(
    folder / 'a' / '4', 'boxing', returns=((400, 6.05),), evaluations=()
  )
  fake_runs.make(folder / 'a' / '5', 'tetris', optimizer={'decay': 0.5})
  fake_runs.make(folder / 'a' / '6', 'venture', returns=(), evaluations=())
  fake_runs.make(
    folder / 'b' / '1', mode='none', returns=((1000, -3.05),), meta=False
  )
  out = folder / 'out'
  argv = [f'<b> & "c"={folder / "a"}', str(folder / 'b'), f'--out={out}']
  assert report.main(argv) == 0
  return out


def test_the_page_is_whole_and_loads_nothing(made):
  content = (made / 'report.html').read_text()
  tree = _check_page(content)
  assert '<b> & "c"' in _words(tree)
  anchors = {e.attrib['id'] for e in tree.iter() if 'id' in e.attrib}
  assert {'progress', 'statistics', 'published', 'game-pong'} <= anchors
  # Curves of Pong, Boxing and Tetris; none of Venture, which has no rows.
  curves = {
    card.attrib['id']
    for card in tree.iter('div')
    if card.attrib.get('class') == 'card'
    and card.find('{http://www.w3.org/2000/svg}svg') is not None
  }
  assert curves == {'game-pong', 'game-boxing', 'game-tetris'}


def test_the_page_says_how_partial_it_is(made):
  words = _words(_check_page((made / 'report.html').read_text()))
  for said in (
    '54 games of 57 missing',  # Pong, Boxing and Venture; Tetris is none.
    '3 runs not finished',
    'ended in the window that scores venture (seed 1)',
    'not among the 57 games, and so without a human-normalised score: tetris',
    'its runs differ in optimizer.decay',
    'A median over fewer than 57 games is another quantity',
    'No label has finished runs of 200M frames at all 57 games',
    'The published scores are those of 200M frames',
    'abcdef012345',
  ):
    assert said in words


def test_the_table_of_games_has_known_numbers(made):
  rows = {(r['label'], r['game']): r for r in _rows(made / 'games.csv')}
  assert len(rows) == 5
  pong = rows['<b> & "c"', 'pong']
  assert (pong['runs'], pong['runs_finished']) == ('3', '2')
  assert (pong['runs_scored'], pong['finished']) == ('2', '1')
  assert float(pong['score_mean']) == 3.0
  assert float(pong['score_sd']) == pytest.approx(2**0.5)
  assert float(pong['human_normalized']) == pytest.approx(23.7 / 35.3)
  assert float(pong['evaluation_mean']) == 8.0
  assert (pong['window_start'], pong['window_end']) == ('950', '1000')
  assert float(pong['rainbow_200m']) == 20.9
  assert float(pong['last meta/discount']) == 0.991
  boxing = rows['<b> & "c"', 'boxing']
  assert (boxing['finished'], boxing['frames_done_max']) == ('0', '400')
  assert boxing['evaluation_mean'] == ''
  venture = rows['<b> & "c"', 'venture']
  assert (venture['score_mean'], venture['runs_scored']) == ('', '0')
  assert rows['<b> & "c"', 'tetris']['human_normalized'] == ''
  assert rows['none', 'pong']['last meta/discount'] == ''


def test_the_table_of_statistics_has_known_numbers(made):
  rows = _rows(made / 'aggregates.csv')
  medians = {
    (r['label'], r['finished']): r for r in rows if r['statistic'] == 'median'
  }
  # Finished: Pong alone. With unfinished runs: (23.7 / 35.3 + 0.495833) / 2,
  # as Boxing has 0.1 for random play and 12.1 for a human.
  pong, boxing = 23.7 / 35.3, (6.05 - 0.1) / 12.0
  whole = medians['<b> & "c"', '1']
  assert float(whole['value']) == pytest.approx(pong)
  assert whole['num_games'] == '1'
  partial = medians['<b> & "c"', '0']
  assert float(partial['value']) == pytest.approx((pong + boxing) / 2)
  assert partial['num_games'] == '2'
  assert medians['none', '1']['low'] == ''
  (better, _) = [
    r for r in rows if r['statistic'] == 'probability_of_improvement'
  ]
  assert (better['over'], float(better['value'])) == ('none', 1.0)


@pytest.mark.parametrize('missing', [0, 1])
def test_only_57_whole_games_stand_in_the_table_of_medians(tmp_path, missing):
  references = list(atari_scores.references().items())[missing:]
  for game, reference in references:
    value = (reference.random + reference.human) / 2.0
    fake_runs.make(
      tmp_path / 'runs' / game,
      game,
      num_frames=200_000_000,
      returns=((199_000_000, value), (200_000_160, value)),
      evaluations=(),
      meta=False,
    )
  found = results.compute(report.collect.collect([f'half={tmp_path / "runs"}']))
  (half,) = found.aggregates
  assert half.full_length
  assert half.statistics['median'].value == pytest.approx(0.5)
  section = report.overview.comparison(found)
  words = _words(ElementTree.fromstring(f'<a>{section.body}</a>'))
  assert ('half 50.0 % measured here' in words) == (not missing)
  assert ('No label has finished' in words) == bool(missing)
  assert ('All 57 games' in words) == (not missing)
  assert 'the runs here had fewer' not in words


def test_published_scores_alone(tmp_path, capsys):
  out = tmp_path / 'out'
  assert report.main(['--published', f'--out={out}']) == 0
  assert len(capsys.readouterr().out.splitlines()) == 3
  words = _words(_check_page((out / 'report.html').read_text()))
  assert 'IMPALA deep 57 games published 191.8 %' in words
  assert 'BMG, L = 4, KL & V about 610 % stated in the paper' in words
  assert len(_rows(out / 'games.csv')) == 57
  medians = {
    r['label']: round(100 * float(r['value']), 1)
    for r in _rows(out / 'aggregates.csv')
    if r['statistic'] == 'median'
  }
  assert medians['IMPALA deep'] == 191.8
  assert medians['Rainbow'] == 231.0


def _table_rows(body):
  """The cells of each row of all tables."""
  tree = ElementTree.fromstring(f'<a>{body}</a>')
  return [
    [' '.join(' '.join(cell.itertext()).split()) for cell in row]
    for row in tree.iter('tr')
  ]


def test_the_table_of_meta_parameters_marks_what_hardly_moved(tmp_path):
  for seed, discount, share in ((1, 0.4, 1e-4), (2, -0.6, 0.02)):
    fake_runs.make(
      tmp_path / 'bmg' / str(seed),
      seed=seed,
      travels={'discount': (discount, 0.5), 'discount_aux1': (0.002, share)},
    )
  fake_runs.make(tmp_path / 'dead', travels={'discount': (0.0, 1e-6)})
  fake_runs.make(tmp_path / 'old')
  specs = [f'{label}={tmp_path / label}' for label in ('bmg', 'dead', 'old')]
  found = results.compute(report.collect.collect(specs))
  look = figures.looks(found.collection.labels)
  body = report.games.meta_parameters(found, look).body
  rows = {(row[0], row[1]): row[2:] for row in _table_rows(body)}
  moved = ['0.991', '0.991', '-0.100 -0.600 to +0.400', '50.0 %', '']
  assert rows['bmg', 'discount'] == moved
  assert rows['bmg', 'discount (head 1)'][-1] == 'hardly moved in 1 of 2 runs'
  assert rows['dead', 'discount'][2:] == ['+0.000', '< 0.1 %', 'hardly moved']
  assert rows['dead', 'discount (head 1)'][2:] == ['-', '-', '']
  assert rows['old', 'discount'] == ['0.991', '0.991', '-', '-', '']
  games = list(csv.DictReader(io.StringIO(report.tables.games(found))))
  assert [row['last travel/discount'] for row in games] == ['-0.1', '0', '']
  assert [row['median step/discount'] for row in games] == ['0.5', '1e-06', '']


def test_numbers_on_axes_are_not_shortened(tmp_path):
  folder = fake_runs.make(tmp_path / 'a')
  run = report.collect.collect([folder]).runs[0]
  run.learner['meta/discount'] = [0.991, 0.9925, 0.994]
  picture = figures.meta_parameters(
    {'bmg': [run]}, figures.looks(['bmg']), 'x', 2
  )
  texts = re.findall(r'<text[^>]*>([^<]*)<', picture)
  ticks = [float(text) for text in texts if re.fullmatch(r'0\.\d+', text)]
  assert len(set(ticks)) >= 3
  assert min(ticks) <= 0.96  # Of the auxiliary head, at 0.95.
  assert any(len(text) > 4 for text in texts)


def test_long_numbers_on_axes_have_room(tmp_path):
  run = report.collect.collect([fake_runs.make(tmp_path / 'a')]).runs[0]
  run.learner['meta/entropy_weight'] = [0.00099996, 0.00099998, 0.001]
  picture = figures.meta_parameters(
    {'bmg': [run]}, figures.looks(['bmg']), 'x', 1
  )
  ends = re.findall(r'<text[^>]*? x="([^"]*)"[^>]*>(0\.0[^<]*)<', picture)
  assert max(len(tick) for _, tick in ends) >= len('0.00099998')
  for end, tick in ends:
    width = textpath.TextPath((0, 0), tick, size=9).get_extents().width
    assert float(end) > width


def test_small_scores_are_not_written_in_thousandths(tmp_path):
  returns = ((100, 0.0), (500, 0.4), (1000, 0.9))
  run = fake_runs.make(tmp_path / 'a', returns=returns)
  runs = report.collect.collect([run]).runs
  picture = figures.learning_curves(
    'pong', {'bmg': runs}, figures.looks(['bmg']), 'x'
  )
  ticks = re.findall(r'<text[^>]*>([^<]*)<', picture)
  assert '0.4' in ticks
  assert '1k' in ticks or '900' in ticks
  assert not [tick for tick in ticks if tick.endswith('m')]


def test_percents_on_axes_differ_where_scores_hardly_do(tmp_path):
  # Of Boxing: 0 % to 0.8 % of a human's.
  returns = ((100, 0.1), (500, 0.15), (1000, 0.2))
  run = fake_runs.make(tmp_path / 'a', 'boxing', returns=returns)
  runs = report.collect.collect([run]).runs
  picture, _ = figures.median_curves(runs, figures.looks(['bmg']), 'x')
  ticks = re.findall(r'<text[^>]*>([^<]*)%<', picture)
  assert len(ticks) >= 3
  assert len({float(tick) for tick in ticks}) == len(ticks)


def test_the_median_curve_stops_where_the_first_run_ends(tmp_path):
  runs = [
    fake_runs.make(tmp_path / '1', returns=((100, -20.7), (500, 14.6))),
    fake_runs.make(tmp_path / '2', 'boxing', returns=((100, 0.1), (300, 12.1))),
  ]
  runs = report.collect.collect(runs).runs
  x, median, deviation = figures._median_curve(figures._normalized_curves(runs))
  assert (x[0], x[-1]) == (100, 300)
  # Half way in Pong, and a human's score in Boxing.
  assert median[[0, -1]] == pytest.approx([0.0, 0.75])
  np.testing.assert_array_equal(deviation, 0.0)


def test_text_is_escaped_and_markup_is_not():
  cell = page.tag('td', ['<x>', page.Markup('<b>y</b>')], title='"&')
  assert cell == '<td title="&quot;&amp;">&lt;x&gt;<b>y</b></td>'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['{tmp}/nowhere'], "no folder '{tmp}/nowhere'"),
    (['{tmp}'], "'{tmp}' is no run and holds none"),
    (['{tmp}/damaged'], "'{tmp}/damaged/learner.csv' is damaged"),
    (['{tmp}/good', '--group=meta.kind'], "no field 'meta.kind'"),
    (['{tmp}/good', '--out=/proc/nowhere'], '/proc/nowhere'),
  ],
)
def test_mistakes_end_with_one_line(tmp_path, capsys, arguments, message):
  if arguments[0] != '{tmp}':
    fake_runs.make(tmp_path / 'good')
    fake_runs.make(tmp_path / 'damaged')
    with open(tmp_path / 'damaged' / 'learner.csv', 'a') as file:
      file.write('1,2,3,4,5,6,7,8\n')
  argv = [a.format(tmp=tmp_path) for a in arguments]
  assert report.main([f'--out={tmp_path}/out', *argv]) == 2
  error = capsys.readouterr().err
  assert message.format(tmp=tmp_path) in error
  assert len(error.splitlines()) == 1


@pytest.mark.parametrize('argv', [[], ['--published', 'runs/a']])
def test_runs_or_published_scores_are_asked_for(argv, capsys):
  with pytest.raises(SystemExit, match='2'):
    report.main(argv)
  assert 'either runs or --published' in capsys.readouterr().err


def test_numbers_are_written_for_people():
  assert text.percent(1.918) == '191.8 %'
  assert text.percent(float('nan')) == text.score(float('nan')) == '-'
  assert text.interval(aggregate.Estimate(1.0, 0.5, 12.0)) == '50.0 to 1,200.0'
  assert text.interval(aggregate.Estimate(1.0)) == ''
  assert (text.score(-20.66), text.score(12345.6)) == ('-20.7', '12,346')
  assert (numbers.large(2_500_000), numbers.large(480)) == ('2.5M', '480')
  assert (numbers.large(-20.66), numbers.large(25_123.0)) == ('-20.7', '25.1k')
  assert (text.span([3, 1]), text.span([3])) == ('1 to 3', '3')
