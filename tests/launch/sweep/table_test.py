import io
import json

from rich.console import Console

from launch.sweep import (
  cells,
  table,
)
from tests.launch import processes
from tests.launch.sweep import fake_sweep


def _show(tmp_path, height):
  """Returns the table of nine cells, one of which runs and one has failed."""
  grid = cells.make_cells(str(tmp_path), ('pong', 'boxing', 'alien'), (1, 2, 3))
  statuses = [cells.Status(cell) for cell in grid]
  statuses[7].state = cells.RUNNING
  statuses[8].state, statuses[8].reason = cells.FAILED, 'replay-0: port'
  folder_path = tmp_path / 'boxing-3'
  folder_path.mkdir()
  row = {
    'num_frames': 50_000_000,
    'frames_per_second_long': 10_000.0,
    'episode_return': 12.1,
    'time_left': 15_000.0,
  }
  (folder_path / 'learner.jsonl').write_text(json.dumps(row) + '\n')
  output = io.StringIO()
  console = Console(
    file=output,
    width=120,
    height=height,
    force_terminal=True,
    color_system=None,
  )
  settings = fake_sweep.settings(processes.small_config())
  with table.Display(settings, str(tmp_path), console) as display:
    display.update(statuses)
    display.changed(statuses[7])
    display.changed(statuses[8])
  return output.getvalue()


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
