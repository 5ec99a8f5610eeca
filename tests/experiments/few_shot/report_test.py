import dataclasses

import imageio.v3 as imageio
import numpy as np
import pandas as pd
import pytest

from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import report, training

_STEPS = np.array([0, 10, 20, 30])
_MAML = schema.Learner(kind='maml', inner_updates=5)
_BMG = schema.Learner(kind='bmg', inner_updates=5, bootstrap_length=3)


def _study(kind='digits', **learners):
  return schema.Study(
    num_seeds=2,
    num_meta_steps=30,
    eval_period=10,
    data=schema.Data(kind=kind),
    learners=learners,
  )


def _curves(seconds_per_step, validation, test=None):
  validation = np.array(validation)
  seconds = np.tile(_STEPS * seconds_per_step, (len(validation), 1))
  test = validation if test is None else np.array(test)
  return report.Curves(_STEPS, seconds, validation, test)


@pytest.fixture
def study():
  return _study(maml=_MAML, bmg=_BMG)


@pytest.fixture
def curves():
  return {
    # The mean ends at 0.6, which it has reached at 20, too.
    'maml': _curves(
      0.1,
      [[0.2, 0.4, 0.7, 0.5], [0.2, 0.4, 0.5, 0.7]],
      test=[[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.5]],
    ),
    'bmg': _curves(
      0.3,
      [[0.2, 0.5, 0.5, 0.6], [0.2, 0.7, 0.6, 0.9]],
      test=[[0.0, 0.0, 0.0, 0.6], [0.0, 0.9, 0.9, 0.8]],
    ),
  }


def test_summary_by_hand(study, curves):
  table = report.summarize(study, curves).set_index('learner')
  maml, bmg = table.loc['maml'], table.loc['bmg']
  # At the seeds' best validation: after 20 and after 30 meta-steps.
  np.testing.assert_allclose(maml.test_mean, (0.3 + 0.5) / 2)
  np.testing.assert_allclose(maml.test_sd, np.sqrt(0.02))
  np.testing.assert_allclose(maml.validation_mean, 0.7)
  np.testing.assert_allclose(bmg.test_mean, 0.7)
  np.testing.assert_allclose(maml.ms_per_meta_step, 100.0)
  np.testing.assert_allclose(bmg.ms_per_meta_step, 300.0)
  np.testing.assert_allclose([maml.level, bmg.level], 0.6)
  assert (maml.meta_steps_to_level, bmg.meta_steps_to_level) == (20, 10)
  np.testing.assert_allclose(maml.seconds_to_level, 2.0)
  np.testing.assert_allclose(bmg.seconds_to_level, 3.0)
  assert (bmg.meta_steps_ratio, bmg.seconds_ratio) == (0.5, 1.5)
  assert (maml.meta_steps_ratio, maml.seconds_ratio) == (1.0, 1.0)


def test_errors_are_better_when_lower():
  study = _study('sinusoid', maml=_MAML, bmg=_BMG)
  curves = {
    'maml': _curves(0.1, [[4, 3, 2, 1], [4, 3, 2, 1]]),
    'bmg': _curves(0.1, [[4, 2, 3, 2.5], [4, 2, 3, 2.5]], [[9, 8, 7, 6]] * 2),
  }
  table = report.summarize(study, curves).set_index('learner')
  assert table.loc['bmg'].test_mean == 8
  # Never as good as 1.
  assert np.isnan(table.loc['bmg'].meta_steps_to_level)
  assert np.isnan(table.loc['bmg'].seconds_ratio)
  assert table.loc['maml'].meta_steps_to_level == 30


def test_the_best_of_each_kind_and_k_is_the_best_in_validation():
  longer = dataclasses.replace(_BMG, bootstrap_length=10)
  other_k = dataclasses.replace(_BMG, inner_updates=1)
  study = _study(a=_BMG, b=longer, c=other_k, d=_MAML)
  flat = lambda validation, test: _curves(
    0.1, [[validation] * 4] * 2, [[test] * 4] * 2
  )
  curves = {
    'a': flat(0.5, 0.9),
    'b': flat(0.6, 0.2),
    'c': flat(0.1, 0.1),
    'd': flat(0.3, 0.3),
  }
  table = report.summarize(study, curves)
  assert list(table['best_of_kind_and_K']) == [False, True, True, True]
  # There is no MAML with K = 1 to compare with.
  assert list(table['level'].isna()) == [False, False, True, False]


def test_reference_is_full_maml():
  study = _study(
    fomaml=dataclasses.replace(_MAML, first_order=True),
    anil=dataclasses.replace(_MAML, anil=True),
    bmg=_BMG,
    maml=_MAML,
  )
  assert report.reference(study, study.learners, 'bmg') == 'maml'
  assert report.reference(study, {'fomaml': None, 'bmg': None}, 'bmg') is None


def test_a_single_seed_has_no_deviation(study, curves):
  single = {
    name: curve._replace(
      seconds=curve.seconds[:1],
      validation=curve.validation[:1],
      test=curve.test[:1],
    )
    for name, curve in curves.items()
  }
  assert report.summarize(study, single)['test_sd'].isna().all()


def _record(study, workdir, name, curve):
  for index, seed in enumerate(training.seeds(study)):
    folder = training.seed_folder(str(workdir), name, seed)
    folder.mkdir(parents=True)
    columns = {
      'meta_step': curve.meta_step.astype(float),
      'seconds': curve.seconds[index],
      'train_loss': np.zeros(4),
      'validation': curve.validation[index],
      'test': curve.test[index],
    }
    training.write_records(folder, columns)


def test_report_is_written_from_records(study, curves, tmp_path):
  assert 'unfinished, left out: maml, bmg' in report.write(study, str(tmp_path))
  _record(study, tmp_path, 'maml', curves['maml'])
  late = curves['bmg']
  unfinished = late.meta_step.astype(float)
  unfinished[-1] = np.nan
  _record(study, tmp_path, 'bmg', late._replace(meta_step=unfinished))
  assert 'left out: bmg' in report.write(study, str(tmp_path))
  for seed in training.seeds(study):
    (tmp_path / 'bmg' / f'seed_{seed}' / 'evaluation.csv').unlink()
    (tmp_path / 'bmg' / f'seed_{seed}').rmdir()
  _record(study, tmp_path, 'bmg', late)
  text = report.write(study, str(tmp_path))
  assert 'left out' not in text
  assert str(tmp_path / 'curves.png') in text
  saved = pd.read_csv(tmp_path / 'summary.csv')
  pd.testing.assert_frame_equal(
    saved, report.summarize(study, curves), check_dtype=False
  )
  picture = imageio.imread(tmp_path / 'curves.png')
  assert picture.shape[0] > 500
  assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 50
