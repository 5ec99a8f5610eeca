import io
import json

import pytest
from rich.console import Console

from bmg.launch.sweep import cells, table
from tests.launch import processes
from tests.launch.sweep import fake_sweep

_ROW = {
  'num_frames': 50_000_000,
  'frames_per_second_long': 10_000.0,
  'episode_return': 12.1,
  'time_left': 15_000.0,
}


def _console(height):
  return Console(
    file=io.StringIO(),
    width=120,
    height=height,
    force_terminal=True,
    color_system=None,
  )


def _show(tmp_path, height):
  """Returns the table of nine cells, one of which runs and one has failed."""
  grid = cells.make_cells(str(tmp_path), ('pong', 'boxing', 'alien'), (1, 2, 3))
  statuses = [cells.Status(cell) for cell in grid]
  statuses[7].state = cells.RUNNING
  statuses[8].state, statuses[8].reason = cells.FAILED, 'replay-0: port'
  folder_path = tmp_path / 'boxing-3'
  folder_path.mkdir()
  (folder_path / 'learner.jsonl').write_text(json.dumps(_ROW) + '\n')
  console = _console(height)
  settings = fake_sweep.settings(processes.small_config())
  with table.Display(settings, str(tmp_path), console) as display:
    display.update(statuses)
    display.changed(statuses[7])
    display.changed(statuses[8])
  return console.file.getvalue()


def test_a_terminal_shows_the_cells_that_matter(tmp_path):
  text = _show(tmp_path, height=11)
  (row,) = [line for line in text.splitlines() if 'running' in line][:1]
  for shown in (*('boxing-3', '50M (25 %)', '10k', '12.1', '100 %', '4h10m'),):
    assert shown in row
  assert 'replay-0: port' in text
  assert '... and 6 more cells' in text
  assert '9 cells: 7 pending, 1 running, 1 failed' in text
  assert '50M of 1.8G frames (3 %)  10k/s  left 48h36m' in text
  assert 'median 100 %, mean 100 % over 1 games' in text
  # The table shows what runs; what fails is also said for good.
  assert 'alien-3: failed for good: replay-0: port' in text
  assert 'boxing-3: running' not in text


def test_a_large_terminal_shows_all_cells(tmp_path):
  text = _show(tmp_path, height=40)
  assert 'more cells' not in text
  assert all(f'{game}-1' in text for game in ('pong', 'boxing', 'alien'))


@pytest.mark.parametrize('height', [11, 40])
def test_variants_have_a_column_and_scores_of_their_own(tmp_path, height):
  variants = ('none', 'bmg')
  grid = cells.make_cells(
    str(tmp_path), ('boxing', 'pong'), (1, 2), variants=variants
  )
  for variant, score in zip(variants, (0.1, 12.1), strict=True):
    folder_path = tmp_path / variant / 'boxing-1'
    folder_path.mkdir(parents=True)
    row = {**_ROW, 'episode_return': score}
    (folder_path / 'learner.jsonl').write_text(json.dumps(row) + '\n')
  statuses = [cells.Status(cell, cells.DONE) for cell in grid]
  statuses[1].state = cells.FAILED
  config = processes.small_config()
  console = _console(height)
  settings = fake_sweep.settings(config, config, variants=variants)
  with table.Display(settings, str(tmp_path), console) as display:
    display.update(statuses)
    display.changed(statuses[1])
  text = console.file.getvalue()
  assert ['variant', 'cell', 'state'] in [
    [word.strip() for word in line.split('\u2503')[1:4]]
    for line in text.splitlines()
  ]
  assert ['bmg', 'boxing-1', 'failed'] in [
    [word.strip() for word in line.split('\u2502')[1:4]]
    for line in text.splitlines()
  ]
  assert 'by none: median 0 %, mean 0 % over 1 games' in text
  assert 'by bmg: median 100 %, mean 100 % over 1 games' in text
  assert 'bmg/boxing-1: failed for good' in text
