import dataclasses
import json

import pytest

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch.local import launcher as local
from bmg.launch.run import folder
from tests.launch import processes


def _with_checkpoint(workdir, config):
  folder.prepare(config, str(workdir), ['train'])
  (workdir / 'checkpoints' / '1').mkdir(parents=True)


def test_the_saved_configuration_is_the_configuration(tmp_path):
  config = processes.small_config()
  folder.prepare(config, str(tmp_path), ['train'])
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert schema.from_config_dict(saved) == config


def test_each_start_is_recorded(tmp_path):
  config = processes.small_config()
  for command_line in (['train', '--first'], ['train', '--second']):
    folder.prepare(config, str(tmp_path), command_line)
  starts = json.loads((tmp_path / 'provenance.json').read_text())
  assert [start['command_line'][1] for start in starts] == [
    '--first',
    '--second',
  ]
  assert starts[0]['packages']['jax']
  assert starts[0]['python'].startswith('3.')
  assert starts[0]['num_cpus'] >= 1


def test_the_same_configuration_resumes_without_remark(tmp_path):
  config = processes.small_config()
  _with_checkpoint(tmp_path, config)
  assert folder.prepare(config, str(tmp_path), ['train']) == []


def test_a_longer_run_resumes_with_a_remark(tmp_path):
  config = processes.small_config()
  _with_checkpoint(tmp_path, config)
  longer = dataclasses.replace(config, num_frames=300_000_000)
  assert folder.prepare(longer, str(tmp_path), ['train']) == [
    'num_frames: 200000000 -> 300000000'
  ]


@pytest.mark.parametrize(
  ('group', 'field', 'value'),
  [
    ('env', 'game', 'breakout'),
    ('agent', 'head_hidden', (32,)),
    ('optimizer', 'name', 'adam'),
    ('meta', 'mode', 'none'),
  ],
)
def test_another_kind_of_run_is_refused(tmp_path, group, field, value):
  config = processes.small_config()
  _with_checkpoint(tmp_path, config)
  changed = dataclasses.replace(
    config,
    **{group: dataclasses.replace(getattr(config, group), **{field: value})},
  )
  with pytest.raises(checks.ConfigError, match=f'{group}.{field}'):
    folder.prepare(changed, str(tmp_path), ['train'])
  # The saved one is still that of the checkpoints.
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert schema.from_config_dict(saved) == config


@pytest.mark.parametrize(
  ('section', 'field', 'value'),
  [
    ('context', 'inputs', ['reward']),
    ('context', 'length', 7),
    ('target_optimizer', 'name', 'adam'),
  ],
)
def test_what_the_learner_could_not_resume_is_refused(
  tmp_path, section, field, value
):
  config = processes.small_config()
  _with_checkpoint(tmp_path, config)
  changed = schema.to_dict(config)
  changed['meta'][section][field] = value
  with pytest.raises(checks.ConfigError) as raised:
    folder.prepare(schema.from_config_dict(changed), str(tmp_path), ['train'])
  message = str(raised.value)
  assert f'config.meta.{section}.{field} = ' in message
  assert f'the checkpoints in {tmp_path} were made with' in message


def test_the_precision_may_change_on_resume(tmp_path):
  config = processes.small_config()
  _with_checkpoint(tmp_path, config)
  agent = dataclasses.replace(config.agent, torso_dtype='bfloat16')
  faster = dataclasses.replace(config, agent=agent)
  assert folder.prepare(faster, str(tmp_path), ['train']) == [
    'agent.torso_dtype: float32 -> bfloat16'
  ]


def test_a_run_that_saved_nothing_can_be_changed(tmp_path):
  config = processes.small_config()
  folder.prepare(config, str(tmp_path), ['train'])
  changed = dataclasses.replace(config, seed=2)
  changes = folder.prepare(changed, str(tmp_path), ['train'])
  assert changes == ['seed: 1 -> 2']


def test_one_folder_takes_one_run(tmp_path):
  held = local.lock(str(tmp_path))
  with pytest.raises(local.LaunchError, match=r'pid \d+'):
    local.lock(str(tmp_path))
  held.close()
  local.lock(str(tmp_path)).close()
