import numpy as np
import pytest

from bmg.experiments.two_colors import units
from bmg.launch import cli


def test_all_states_differ():
  observations = np.asarray(units.all_observations())
  assert observations.shape == (25 * 24 * 23, 30)
  assert len(np.unique(observations, axis=0)) == len(observations)
  assert (observations.sum(axis=1) == 6).all()


def test_units_that_are_always_zero_are_dead():
  first = np.zeros((30, 4), np.float32)
  # Follows the agent's first column; the others are never, always, never on.
  first[0, 0] = 1.0
  params = {
    'mlp/~/linear_0': {'w': first, 'b': np.float32([0.0, -1.0, 1.0, 0.0])},
    'mlp/~/linear_1': {
      'w': np.ones((4, 2), np.float32),
      # The sum of the first layer is 1 or 2.
      'b': np.float32([-1.5, -2.0]),
    },
    'mlp/~/linear_2': {'w': np.zeros((2, 4)), 'b': np.zeros(4)},
  }
  assert units.dead_shares(params, units.all_observations()) == [0.5, 0.5]


def test_a_folder_without_a_study_is_named(tmp_path):
  with pytest.raises(cli.UsageError, match='holds no study: No such file'):
    units.main(['units', f'--workdir={tmp_path}'])
