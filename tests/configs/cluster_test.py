import pytest

from configs import base, checks, schema


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('cluster.learner.cpus', 0),
    ('cluster.actor.memory_gb', 0.0),
    ('cluster.replay.accelerators', -1),
    ('cluster.actors_per_task', 0),
    ('cluster.time_limit_minutes', -1),
    ('slurm.options', ('node7',)),
    ('slurm.options', ('--exclude=a\n#SBATCH -x',)),
    ('slurm.partition', 'a\nb'),
    ('kubernetes.namespace', 'My_Space'),
    ('kubernetes.mount', 'runs'),
    ('kubernetes.user_id', 0),
    ('kubernetes.actor_node_selector', ('gpu',)),
  ],
)
def test_bad_values_are_named(field, value):
  config = base.get_config()
  group = config
  *path, name = field.split('.')
  for part in path:
    group = group[part]
  group[name] = value
  with pytest.raises(checks.ConfigError, match=field):
    schema.from_config_dict(config)


def test_notice_must_fit_into_the_time_limit():
  config = base.get_config()
  config.cluster.time_limit_minutes = 2
  with pytest.raises(checks.ConfigError, match='notice_s'):
    schema.from_config_dict(config)
  config.cluster.notice_s = 60.0
  assert schema.from_config_dict(config).cluster.notice_s == 60
