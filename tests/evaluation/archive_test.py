import json

import pandas as pd
import pytest

from bmg.evaluation import archive, read
from bmg.evaluation.report import collect, results
from bmg.launch.sweep import progress
from tests.evaluation.report import fake_runs


def finished(folder, num_frames=1000, **run):
  fake_runs.make(folder, num_frames=num_frames, **run)
  (folder / 'state').mkdir()
  (folder / 'state' / 'finished.json').write_text(
    json.dumps({'num_frames': num_frames, 'num_updates': 10})
  )
  return folder


def scores(folder):
  found = results.compute(collect.collect([str(folder)]))
  return {
    (score.label, score.game): list(score.values) for score in found.game_scores
  }


@pytest.fixture
def runs(tmp_path):
  source = tmp_path / 'runs'
  many = [(10 * (i + 1), 0.25 * i) for i in range(100)]
  finished(source / 'bmg' / 'pong-1', returns=many, travels={'leak': (0.1, 1)})
  finished(source / 'none' / 'pong-1', mode='none', evaluations=())
  fake_runs.make(source / 'bmg' / 'pong-2', seed=2)
  (source / 'sweep.json').write_text(
    json.dumps({'games': ['pong'], 'starts': [{'host': 'somewhere'}]})
  )
  return source


def test_a_report_on_the_copy_says_the_same(runs, tmp_path):
  copied = archive.archive(str(runs), str(tmp_path / 'kept'), num_rows=100)
  assert copied == ['bmg/pong-1', 'none/pong-1']
  kept = scores(tmp_path / 'kept')
  assert (
    kept[('bmg', 'pong')] == scores(runs / 'bmg' / 'pong-1')[('bmg', 'pong')]
  )
  assert kept[('none', 'pong')] == scores(runs)[('none', 'pong')]


def test_the_learners_rows_are_thinned_and_the_last_one_is_kept(runs, tmp_path):
  archive.archive(str(runs), str(tmp_path / 'kept'), num_rows=10)
  rows = pd.read_csv(tmp_path / 'kept' / 'bmg' / 'pong-1' / 'learner.csv')
  assert len(rows) == 10
  assert rows['num_frames'].iloc[-1] == 1000
  assert rows['num_frames'].diff().max() <= 120
  assert {'meta/discount', 'travel/leak', 'step/leak'} <= set(rows.columns)


def test_a_sweep_counts_the_copies_as_done(runs, tmp_path):
  archive.archive(str(runs), str(tmp_path / 'kept'))
  found = progress.read(str(tmp_path / 'kept' / 'bmg' / 'pong-1'), 'pong', 1000)
  assert found.learned
  assert found.evaluated
  assert found.episode_return == 24.75
  longer = progress.read(
    str(tmp_path / 'kept' / 'bmg' / 'pong-1'), 'pong', 2000
  )
  assert not longer.learned


def test_nothing_is_kept_of_the_machine_but_what_it_is(runs, tmp_path):
  path = runs / 'bmg' / 'pong-1' / 'provenance.json'
  start = {
    'host': 'h',
    'executable': '/e',
    'command_line': ['c'],
    'python': '3',
  }
  path.write_text(json.dumps([start]))
  archive.archive(str(runs), str(tmp_path / 'kept'))
  assert read.read_starts(str(tmp_path / 'kept' / 'bmg' / 'pong-1')) == [
    {'python': '3'}
  ]
  sweep = json.loads((tmp_path / 'kept' / 'sweep.json').read_text())
  assert sweep == {'games': ['pong'], 'starts': []}


def test_what_is_there_is_replaced(runs, tmp_path):
  for num_rows in (20, 5):
    archive.archive(str(runs), str(tmp_path / 'kept'), num_rows)
  rows = pd.read_csv(tmp_path / 'kept' / 'bmg' / 'pong-1' / 'learner.csv')
  assert len(rows) == 5


def test_a_folder_that_is_not_there(tmp_path, capsys):
  status = archive.main([str(tmp_path / 'none'), str(tmp_path / 'kept')])
  assert status == 2
  assert 'there is no folder' in capsys.readouterr().err
  assert not (tmp_path / 'kept').exists()


@pytest.mark.parametrize(
  'name', ['bmg/pong-1/state/finished.json', 'sweep.json']
)
def test_a_damaged_file_is_named(runs, tmp_path, capsys, name):
  (runs / name).write_text('{"num_')
  assert archive.main([str(runs), str(tmp_path / 'kept')]) == 2
  error = capsys.readouterr().err
  assert name in error
  assert 'is not JSON' in error
