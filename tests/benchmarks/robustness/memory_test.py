import csv

import pytest

from bmg.benchmarks.harness import command
from bmg.benchmarks.robustness import memory
from bmg.launch import cli

SMALL = (
  '--config=configs/atari_local.py',
  '--config.actors.envs_per_actor=2',
  '--config.actors.unroll_length=5',
  '--config.learner.log_period_s=0.1',
)


def test_growth_is_that_of_the_second_half():
  # Grows to 500 MB at first, then by 1 MB a minute.
  megabytes = [100, 300, 500, 501, 502, 503]
  rows = [
    {'seconds': 60.0 * i, 'num_frames': 1000.0 * i, 'actor-0': 1e6 * each}
    for i, each in enumerate(megabytes)
  ]
  table = memory.make_table(rows)
  cells = [list(column.cells) for column in table.columns]
  assert cells == [['actor-0'], ['100'], ['501'], ['503'], ['503'], ['+60.0']]
  assert table.caption == '5 minutes, 5,000 frames'


@pytest.mark.system
def test_a_run_is_followed_and_stopped(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(command, 'clean_up_on_sigterm', lambda: None)
  folder = tmp_path / 'memory'
  arguments = ('--minutes=0.05', '--period_s=0.5', f'--out={folder}')
  assert memory.main(['memory', *SMALL, *arguments]) == 0
  with open(folder / 'memory.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  names = {'replay-0', 'learner-0', 'actor-0', 'evaluator-0'}
  assert set(rows[0]) == {'seconds', 'num_frames', *names}
  # At 0, 0.5, ... 3 seconds.
  assert len(rows) == 7
  assert int(rows[-1]['num_frames']) > int(rows[0]['num_frames'])
  assert all(int(row[name]) > 50e6 for row in rows for name in names)
  assert 'learner-0' in capsys.readouterr().out
  assert (folder / 'memory.png').read_bytes().startswith(b'\x89PNG')
  # Its last words are those of a run that was stopped in order.
  assert 'Stopped' in (folder / 'launcher.log').read_text()


def test_the_folder_must_be_new(tmp_path):
  (tmp_path / 'here').touch()
  with pytest.raises(cli.UsageError, match='is not empty; take a new folder'):
    memory.main(['memory', *SMALL, f'--out={tmp_path}'])
