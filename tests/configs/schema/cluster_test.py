import pytest

from bmg.configs import base, schema
from bmg.configs.schema import checks


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('cluster.learner.cpus', 0),
    ('cluster.actor.memory_gb', 0.0),
    ('cluster.replay.accelerators', -1),
    ('cluster.actors_per_task', 0),
    ('cluster.time_limit_minutes', -1),
    ('cluster.patience_s', 0.0),
    ('slurm.options', ('node7',)),
    ('slurm.options', ('--exclude=a\n#SBATCH -x',)),
    ('slurm.partition', 'a\nb'),
    ('kubernetes.namespace', 'My_Space'),
    ('kubernetes.namespace', 'x' * 64),
    ('kubernetes.namespace', 'a.b'),
    ('kubernetes.storage_claim', 'My_Claim'),
    ('kubernetes.storage_claim', 'a..b'),
    ('kubernetes.storage_claim', f'a.{"x" * 64}'),
    ('kubernetes.storage_claim', '.'.join(['x' * 60] * 5)),
    ('kubernetes.service_account', 'me!'),
    ('kubernetes.image_pull_secret', 'Secret'),
    ('kubernetes.accelerator_resource', ''),
    ('kubernetes.accelerator_resource', 'nvidia.com/'),
    ('kubernetes.mount', 'runs'),
    ('kubernetes.mount', '/'),
    ('kubernetes.mount', '/runs/'),
    ('kubernetes.mount', '/runs/../etc'),
    ('kubernetes.mount', '/a:b'),
    ('kubernetes.mount', '/tmp/runs'),
    ('kubernetes.user_id', 0),
    ('kubernetes.user_id', 2**31),
    ('kubernetes.actor_node_selector', ('gpu',)),
    ('kubernetes.node_selector', ('=a',)),
    ('kubernetes.learner_node_selector', ('a=b=c',)),
    ('kubernetes.learner_node_selector', (f'a={"x" * 64}',)),
    ('kubernetes.learner_node_selector', (f'{"x" * 64}=a',)),
    ('kubernetes.actor_tolerations', ('spot=true:NoSchedule',)),
    ('kubernetes.learner_tolerations', ('',)),
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


def test_what_kubernetes_takes_is_taken():
  config = base.get_config()
  config.kubernetes.update(
    {
      'namespace': 'team-7',
      'storage_claim': 'runs.v2',
      'service_account': 'trainer',
      'accelerator_resource': 'google.com/tpu',
      'mount': '/data/runs',
      'node_selector': ('cloud.google.com/gke-tpu-topology=2x2', 'empty='),
      'actor_node_selector': (f'io/{"x" * 63}={"y" * 63}',),
      'learner_tolerations': ('google.com/tpu', 'team=Seven', 'empty='),
    }
  )
  kubernetes = schema.from_config_dict(config).kubernetes
  assert kubernetes.mount == '/data/runs'
