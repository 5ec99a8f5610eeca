import numpy as np
import pandas as pd
import pytest

from bmg.configs import schema
from bmg.configs.studies import bad_starts as recipe
from bmg.experiments import bad_starts
from tests.evaluation.report import fake_runs


def make(folder, variant, seed, last_return, travel=0.0, game='pong'):
  """Makes a run whose return rises in a straight line to `last_return`."""
  frames = np.arange(1, 101) * 10
  returns = [(int(x), last_return * x / 1000) for x in frames]
  path = folder / variant / f'{game}-{seed}'
  start = variant.split('-')[0]
  name = (recipe.STARTS[start] or ('entropy_weight',))[0]
  fake_runs.make(
    path, game=game, seed=seed, returns=returns, travels={name: (travel, 0.5)}
  )
  rows = pd.read_csv(path / 'learner.csv')
  rows[f'meta/{name}'] = 0.01
  rows['meta/entropy_weight'] = 0.01
  rows.to_csv(path / 'learner.csv', index=False)


@pytest.fixture
def study(tmp_path):
  for seed, noise in ((1, -0.5), (2, 0.0), (3, 0.5)):
    make(tmp_path, 'good-none', seed, 20 + noise)
    make(tmp_path, 'entropy_high-none', seed, 5 + noise)
    make(tmp_path, 'entropy_high-bmg', seed, 19.5 + noise, travel=-2.0)
    make(tmp_path, 'entropy_high-mg', seed, 30 + noise, travel=-1.0)
  return tmp_path


def test_who_recovers(study):
  rows = bad_starts.table(bad_starts.collect([str(study)]))
  rows = rows.set_index(['start', 'method'])
  # The last tenth of a straight line to 20 has a mean of 19.
  assert rows.loc[('good', 'none'), 'mean'] == pytest.approx(19.0)
  recovers = rows.loc['entropy_high', 'recovers']
  assert recovers.to_dict() == {'none': False, 'mg': True, 'bmg': True}
  assert rows.loc[('entropy_high', 'bmg'), 'travel'] == -2.0
  assert np.isnan(rows.loc[('entropy_high', 'none'), 'travel'])
  assert (rows['seeds'] == 3).all()


def test_the_command_writes_a_table_and_a_figure(study, tmp_path, capsys):
  out = tmp_path / 'out'
  assert bad_starts.main([str(study), f'--out={out}']) == 0
  assert (out / 'bad_starts.png').stat().st_size > 10_000
  assert len(pd.read_csv(out / 'bad_starts.csv')) == 4
  assert 'entropy_high' in capsys.readouterr().out


def test_a_folder_without_runs_of_the_study(tmp_path, capsys):
  assert bad_starts.main([str(tmp_path)]) == 2
  assert 'holds no run of' in capsys.readouterr().err


@pytest.mark.parametrize('variant', recipe.VARIANTS)
def test_a_variant_has_one_thing_wrong(variant):
  config = schema.from_config_dict(recipe.get_config(variant))
  start, method = variant.split('-')
  good = schema.from_config_dict(recipe.get_config(f'good-{method}'))
  assert config.meta.mode == method
  wrong = recipe.STARTS[start]
  if wrong is None:
    assert config == good
    return
  name, value = wrong
  ours, theirs = (
    getattr(each.meta.parameters, name) for each in (config, good)
  )
  assert (ours.fixed if method == 'none' else ours.initial) == value
  # Meta-learning keeps the objective that says what is wanted.
  assert (ours.initial if method == 'none' else ours.fixed) == (
    theirs.initial if method == 'none' else theirs.fixed
  )
