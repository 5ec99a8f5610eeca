import os

import numpy as np
import pandas as pd
import pytest

from bmg import errors
from bmg.configs.two_colors import base, schema
from bmg.experiments.two_colors import run


def _study(**fields):
  study = base.get_study()
  study.num_steps, study.num_seeds = 400, 2
  study.log_period_steps, study.checkpoint_period_steps = 60, 100
  for name, agent in (
    ('ac', base.with_context(base.actor_critic(), 'reward')),
    ('q', base.q_lambda()),
  ):
    agent.hidden = (8,)
    study.agents[name] = agent
  study.update(fields)
  return schema.from_config_dict(study)


def _never():
  return False


def _run(study, name, workdir, should_stop=_never):
  shown = []
  agent_run = run.AgentRun(study, name, str(workdir))
  finished = agent_run.run(should_stop, shown.append)
  agent_run.close()
  return finished, shown, pd.read_csv(workdir / f'{name}.csv')


@pytest.mark.parametrize(
  ('log_period', 'expected'),
  # Steps, updates per row; rows per chunk; rows of the whole run.
  [(60, (64, 4, 1, 7)), (1, (16, 1, 6, 25)), (50, (48, 3, 2, 9))],
)
def test_plan_rounds_to_whole_updates(log_period, expected):
  plan = run.make_plan(_study(log_period_steps=log_period), 16)
  assert (
    plan.steps_per_row,
    plan.updates_per_row,
    plan.rows_per_chunk,
    plan.num_rows,
  ) == expected
  assert plan.num_steps >= 400


@pytest.mark.parametrize('name', ['ac', 'q'])
def test_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, name):
  study = _study()
  whole, shown, expected = _run(study, name, tmp_path / 'whole')
  assert whole
  assert shown[-1].num_steps == shown[-1].total_steps
  stops = iter([False, False, True])
  finished, _, part = _run(study, name, tmp_path / 'parts', lambda: next(stops))
  assert not finished
  assert 0 < len(part) < len(expected)
  finished, _, resumed = _run(study, name, tmp_path / 'parts')
  assert finished
  pd.testing.assert_frame_equal(resumed, expected)
  # Nothing is left to do.
  finished, shown, again = _run(study, name, tmp_path / 'parts')
  assert finished
  assert not shown
  pd.testing.assert_frame_equal(again, expected)


def test_records_have_each_seed_and_period_once(tmp_path):
  _, shown, records = _run(_study(), 'ac', tmp_path)
  assert len(records) == 2 * 7
  assert records['num_steps'].tolist() == list(
    np.repeat(64 * np.arange(1, 8), 2)
  )
  assert records['seed'].tolist() == [0, 1] * 7
  assert records['reward'].nunique() > 5
  # The return that was shown last is the sum of the records.
  total = records.groupby('seed')['reward'].sum().mean() * 64
  assert shown[-1].total_return == pytest.approx(total, rel=1e-4)


def test_another_configuration_is_refused(tmp_path):
  _run(_study(), 'ac', tmp_path)
  changed = _study()
  agent = base.with_context(base.actor_critic(), 'reward')
  agent.hidden, agent.learning_rate = (8,), 0.2
  changed = _study(agents={'ac': agent})
  with pytest.raises(errors.FatalError, match=r'ac\.learning_rate = 0\.2'):
    run.AgentRun(changed, 'ac', str(tmp_path))
  with pytest.raises(errors.FatalError, match=r'env\.switch_interval = 7'):
    run.AgentRun(_study(env={'switch_interval': 7}), 'ac', str(tmp_path))


def test_seeds_differ_and_do_not_depend_on_each_other(tmp_path):
  _, _, two = _run(_study(), 'ac', tmp_path / 'two')
  os.makedirs(tmp_path / 'other', exist_ok=True)
  _, _, other = _run(_study(seed=2), 'ac', tmp_path / 'other')
  first, second = (two[two['seed'] == seed]['reward'] for seed in (0, 1))
  assert first.tolist() != second.tolist()
  assert two['reward'].tolist() != other['reward'].tolist()
