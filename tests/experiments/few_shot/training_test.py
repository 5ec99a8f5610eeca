"""Seeds that are stopped and resumed, and the clock of meta-training."""

import dataclasses
import threading
import time

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import tasks, training

_STUDY = schema.Study(
  num_seeds=1,
  num_meta_steps=25,
  eval_period=10,
  num_eval_tasks=7,
  checkpoint_period_s=0.0,
  data=schema.Data(kind='sinusoid'),
  task=schema.Task(num_ways=1, num_support=5, num_query=5),
  network=schema.Network(hidden=(8,)),
  learners={
    'bmg': schema.Learner(
      inner_updates=2, bootstrap_length=2, meta_learning_rate=0.01
    )
  },
)


class _StopAfter(threading.Event):
  """Is set once it has been asked a number of times."""

  def __init__(self, count):
    super().__init__()
    self._left = count

  def is_set(self):
    self._left -= 1
    return self._left < 0


def _trainer(workdir, study=_STUDY, source=None):
  source = source or tasks.make_source(study.data, study.task)
  return training.Trainer(study, 'bmg', source, str(workdir), {'seed': 1})


def _records(workdir, seed=1):
  folder = training.seed_folder(str(workdir), 'bmg', seed)
  return pd.read_csv(folder / 'evaluation.csv')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  assert _trainer(workdir).run(1, threading.Event())
  return workdir


@pytest.fixture
def whole(finished):
  return _records(finished)


def test_evaluations_are_recorded_on_time(whole):
  assert tuple(whole.columns) == training.COLUMNS
  assert list(whole['meta_step']) == [0, 10, 20, 25]
  assert list(whole['train_loss'].isna()) == [True, False, False, False]
  assert whole['seconds'].iloc[0] == 0
  assert (np.diff(whole['seconds']) > 0).all()
  assert whole['validation'].iloc[-1] < whole['validation'].iloc[0]
  # Of other tasks.
  assert not np.isclose(whole['validation'], whole['test']).any()


def test_a_run_in_pieces_is_the_same_run(tmp_path, whole):
  pieces = 0
  trainer = _trainer(tmp_path)
  last_step, last_seconds = -1, -1.0
  # Stopped within a period, at its start, and at its end.
  for count in (8, 9, 3, 1, 7, 100):
    pieces += 1
    finished = trainer.run(1, _StopAfter(count))
    rows = _records(tmp_path)
    assert rows['meta_step'].iloc[-1] >= last_step
    assert rows['seconds'].iloc[-1] >= last_seconds
    last_step, last_seconds = rows['meta_step'].iloc[-1], rows['seconds'].max()
    if finished:
      break
  assert finished
  assert pieces > 3
  rows = _records(tmp_path)
  for column in ('meta_step', 'train_loss', 'validation', 'test'):
    np.testing.assert_array_equal(rows[column], whole[column])


def test_a_finished_seed_is_not_run_again(finished, whole):
  broken = tasks.Source({}, None, (1,), 1)
  folder = training.seed_folder(str(finished), 'bmg', 1)
  (folder / 'evaluation.csv').unlink()
  assert _trainer(finished, source=broken).run(1, threading.Event())
  pd.testing.assert_frame_equal(_records(finished), whole)


def test_the_clock_counts_neither_compilation_nor_evaluation(tmp_path):
  source = tasks.make_source(_STUDY.data, _STUDY.task)

  def slow_to_trace(key, data):
    time.sleep(0.5)
    return source.sample(key, data)

  trainer = _trainer(tmp_path, source=source._replace(sample=slow_to_trace))
  start = time.monotonic()
  assert trainer.run(1, threading.Event())
  assert time.monotonic() - start > 1.0
  assert _records(tmp_path)['seconds'].iloc[-1] < 0.5


def test_a_loss_that_is_not_finite_ends_the_learner(tmp_path):
  source = tasks.make_source(_STUDY.data, _STUDY.task)

  def infinite(key, data):
    task = source.sample(key, data)
    labels = jnp.full_like(task.query.labels, jnp.inf)
    return task._replace(query=task.query._replace(labels=labels))

  trainer = _trainer(tmp_path, source=source._replace(sample=infinite))
  with pytest.raises(training.DivergedError, match=r'bmg: .* meta-step 10'):
    trainer.run(1, threading.Event())


def test_evaluation_tasks_do_not_depend_on_the_learner(tmp_path, whole):
  other = schema.Learner(kind='maml', inner_updates=2, meta_batch_size=7)
  study = dataclasses.replace(_STUDY, num_meta_steps=1, learners={'bmg': other})
  _trainer(tmp_path, study).run(1, threading.Event())
  rows = _records(tmp_path)
  # The same initial parameters, on the same tasks.
  for column in ('validation', 'test'):
    np.testing.assert_allclose(rows[column][0], whole[column][0], rtol=1e-5)
