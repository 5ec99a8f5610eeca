import dataclasses

import pytest

from configs import checks
from launch import cli
from launch.sweep import (
  folder,
)
from tests.launch import processes
from tests.launch.sweep import fake_sweep


def test_another_kind_of_sweep_is_refused_once_cells_were_trained(tmp_path):
  workdir = str(tmp_path)
  config = processes.small_config()
  folder.write(workdir, fake_sweep.settings(config), ['sweep'])
  other = dataclasses.replace(
    config, optimizer=dataclasses.replace(config.optimizer, learning_rate=0.5)
  )
  assert folder.check(workdir, fake_sweep.settings(other)) == [
    f'config.optimizer.learning_rate: {config.optimizer.learning_rate} -> 0.5'
  ]
  (tmp_path / 'pong-1/checkpoints/7').mkdir(parents=True)
  with pytest.raises(checks.ConfigError, match=r'optimizer\.learning_rate'):
    folder.check(workdir, fake_sweep.settings(other))
  # What only steers may change, and there may be more to do.
  longer = dataclasses.replace(config, num_frames=300_000_000, seed=9)
  assert folder.check(workdir, fake_sweep.settings(longer, seeds=(1, 2))) == [
    'seeds: (1,) -> (1, 2)',
    'config.num_frames: 200000000 -> 300000000',
  ]
  with pytest.raises(cli.UsageError, match='--launcher=kubernetes'):
    folder.check(workdir, fake_sweep.settings(config, launcher='kubernetes'))
  saved = folder.read(workdir)
  assert (saved.games, saved.seeds) == (('pong',), (1,))
  assert saved.num_frames == config.num_frames


def test_the_folder_of_a_run_takes_no_sweep(tmp_path):
  (tmp_path / 'config.json').touch()
  with pytest.raises(cli.UsageError, match='single run'):
    folder.check(str(tmp_path), fake_sweep.settings(processes.small_config()))
