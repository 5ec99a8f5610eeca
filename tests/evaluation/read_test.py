import json
import math
import os

import pytest

from bmg.evaluation import read, records
from bmg.launch.sweep import cells, folder
from tests.launch import processes
from tests.launch.sweep import fake_sweep


def _make_run(folder, rows, name='learner'):
  run_records = records.RunRecords(str(folder), name, None)
  for row in rows:
    run_records.write(row)
  run_records.close()


def test_what_was_written_is_read(tmp_path):
  _make_run(
    tmp_path,
    [{'num_frames': 10, 'loss': 0.25}, {'num_frames': 20, 'loss': math.nan}],
  )
  rows = read.read_records(str(tmp_path), 'learner')
  assert rows['num_frames'].tolist() == [10, 20]
  assert rows['loss'][0] == 0.25
  assert math.isnan(rows['loss'][1])


def test_a_row_in_the_making_is_left_out(tmp_path):
  _make_run(tmp_path, [{'num_frames': 10, 'loss': 0.25}])
  with open(tmp_path / 'learner.csv', 'a') as file:
    file.write('20,0.12')  # Of 0.125.
  rows = read.read_records(str(tmp_path), 'learner')
  assert rows['loss'].tolist() == [0.25]


@pytest.mark.parametrize('launcher', ['local', 'kubernetes'])
def test_the_variant_of_a_run_is_what_its_sweep_says(
  tmp_path, monkeypatch, launcher
):
  config = processes.small_config()
  settings = fake_sweep.settings(
    config, config, variants=('l1', 'L_4'), launcher=launcher
  )
  folder.write(str(tmp_path), settings, ['sweep'])
  grid = cells.make_cells(
    str(tmp_path), ('pong',), (1,), launcher, settings.variants
  )
  for cell in grid:
    os.makedirs(cell.workdir)
    assert read.read_variant(cell.workdir) == cell.variant
  monkeypatch.chdir(grid[0].workdir)
  assert read.read_variant('.') == 'l1'
  (tmp_path / 'link').symlink_to(grid[1].workdir)
  assert read.read_variant(str(tmp_path / 'link')) == 'L_4'
  assert read.read_variant(str(tmp_path / 'other')) is None


def test_missing_things_are_named(tmp_path):
  with pytest.raises(read.RecordsError, match='no run folder'):
    read.read_records(str(tmp_path / 'nowhere'), 'learner')
  _make_run(tmp_path, [], name='evaluation')
  with pytest.raises(read.RecordsError, match=r'has: evaluation\.csv'):
    read.read_records(str(tmp_path), 'learner')
  with pytest.raises(read.RecordsError, match='no rows yet'):
    read.read_records(str(tmp_path), 'evaluation')


def test_load_run_reads_what_there_is(tmp_path):
  _make_run(tmp_path, [{'num_frames': 10, 'loss': 0.25}])
  (tmp_path / 'config.json').write_text(json.dumps({'seed': 3}))
  run = read.load_run(str(tmp_path))
  assert run.config == {'seed': 3}
  assert run.learner is not None
  assert run.evaluation is None
  (tmp_path / 'config.json').write_text('{')
  with pytest.raises(read.RecordsError, match='not JSON'):
    read.load_run(str(tmp_path))


def test_load_run_of_an_empty_folder_fails(tmp_path):
  with pytest.raises(read.RecordsError, match=r'no learner\.csv'):
    read.load_run(str(tmp_path))
