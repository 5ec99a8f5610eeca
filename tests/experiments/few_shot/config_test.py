import importlib
import json

import pytest

from bmg.configs.few_shot import base, schema
from bmg.configs.schema import checks

_RECIPES = ('digits', 'miniimagenet', 'omniglot', 'sinusoid')


def _study(**fields):
  learners = {'a': {'kind': 'maml'}}
  return schema.from_config_dict({'learners': learners} | fields)


@pytest.mark.parametrize('name', _RECIPES)
def test_recipes_compare_what_the_paper_compares(name):
  recipe = importlib.import_module(f'bmg.configs.few_shot.{name}').get_config()
  if name in ('miniimagenet', 'omniglot'):
    with pytest.raises(checks.ConfigError, match=r'config\.data\.folder'):
      schema.from_config_dict(recipe)
    recipe.data.folder = '/images'
  study = schema.from_config_dict(recipe)
  assert study.num_seeds == 3
  compared = {
    (learner.kind, learner.inner_updates, learner.bootstrap_length)
    for learner in study.learners.values()
  }
  assert compared == {('maml', K, 1) for K in (1, 5)} | {
    ('bmg', K, L) for K in (1, 5) for L in (1, 5, 10)
  }
  # By K and L; as text, 10 comes before 5.
  assert list(study.learners)[:5] == [
    'maml_k1',
    'maml_k5',
    'bmg_k1_l1',
    'bmg_k1_l5',
    'bmg_k1_l10',
  ]
  values = json.loads(json.dumps(schema.to_dict(study)))
  assert schema.from_config_dict(values) == study


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'num_sedes': 1}, r"config\.num_sedes.*mean 'num_seeds'"),
    ({'num_seeds': 0}, r'config\.num_seeds = 0: must be at least 1'),
    ({'num_eval_tasks': 2.5}, r'config\.num_eval_tasks = 2\.5: must be of typ'),
    ({'seed': -1}, r'config\.seed = -1'),
    ({'checkpoint_period_s': -1.0}, r'checkpoint_period_s = -1\.0'),
    ({'learners': {}}, r'config\.learners = \{\}'),
    ({'learners': {'a': 3}}, r'config\.learners\.a = 3: must be a group'),
    ({'learners': {'a/b': {}}}, r'config\.learners\.a/b'),
    (
      {'learners': {'a': {'kind': 'mbg'}}},
      r"config\.learners\.a\.kind = 'mbg'.*mean 'bmg'",
    ),
    (
      {'learners': {'a': {'inner_updates': 0}}},
      r'config\.learners\.a\.inner_updates = 0: must be at least 1',
    ),
    ({'data': {'kind': 'digit'}}, r"config\.data\.kind.*mean 'digits'"),
    (
      {'data': {'test_digits': (3, 4)}},
      r'config\.data\.test_digits = \(3, 4\): .*no digit in two splits',
    ),
    ({'data': {'test_digits': (10,)}}, r'config\.data\.test_digits.*0 to 9'),
    (
      {'data': {'kind': 'omniglot', 'folder': 'x', 'num_classes': (1, 2, 3)}},
      r'config\.data\.num_classes = \(1, 2, 3\): must be empty or 2',
    ),
    ({'task': {'num_ways': 1}}, r'config\.task\.num_ways = 1'),
    ({'network': {'hidden': ()}}, r'config\.network\.hidden'),
  ],
)
def test_bad_values_are_refused_by_name(fields, words):
  with pytest.raises(checks.ConfigError, match=words):
    _study(**fields)


def test_the_base_has_every_field_but_no_learner():
  config = base.get_config()
  assert not config.learners
  config.learners = base.learners(inner_learning_rate=0.5)
  study = schema.from_config_dict(config)
  assert {each.inner_learning_rate for each in study.learners.values()} == {0.5}
