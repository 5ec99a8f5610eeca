"""What manifests say, and that Kubernetes and JobSet know all of it.

Schemas of Kubernetes come from `kubernetes-validate`, and JobSet's API from the
models that Kubeflow publishes of it: both are checked to notice mistakes.
"""

import copy
import json
import re

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import (
  jobset_v1alpha2_failure_policy_rule,
  jobset_v1alpha2_job_set,
)

from bmg.configs import base, schema
from bmg.configs.schema import checks
from bmg.launch.kubernetes import dns, manifests
from bmg.launch.run import topology

# The newest, and the oldest that manifests are made for.
_VERSIONS = ('1.37', '1.29')
_QUANTITY = re.compile(r'[0-9]+(Mi|Gi)?')


def _config(**fields):
  """Fields are written group__name=..., such as actors__num_actors=3."""
  config = base.get_config()
  config.actors.num_actors = 3
  config.kubernetes.image = 'registry.example/bmg:1.0'
  config.kubernetes.storage_claim = 'runs'
  for path, value in fields.items():
    *groups, name = path.split('__')
    group = config
    for each in groups:
      group = group[each]
    group[name] = value
  return schema.from_config_dict(config)


def _make(name='pong', **fields):
  return manifests.make(_config(**fields), name, 'secret token')


def _by_kind(documents, kind):
  (document,) = (each for each in documents if each['kind'] == kind)
  return document


def _job_set(**fields):
  return _by_kind(_make(**fields), 'JobSet')


def _jobs(**fields):
  return {
    each['name']: each['template']['spec']
    for each in _job_set(**fields)['spec']['replicatedJobs']
  }


def _pods(**fields):
  return {
    group: job['template']['spec'] for group, job in _jobs(**fields).items()
  }


def _containers(**fields):
  return {group: pod['containers'][0] for group, pod in _pods(**fields).items()}


_VARIANTS = {
  'plain': {},
  'many actors': {
    'actors__num_actors': 1000,
    'cluster__actors_per_task': 7,
    'cluster__relays': True,
    'replay__num_servers': 3,
    'cluster__preemptible_actors': False,
  },
  'everything': {
    'kubernetes__namespace': 'team',
    'learner__num_hosts': 3,
    'kubernetes__mount': '/data/runs',
    'kubernetes__service_account': 'trainer',
    'kubernetes__image_pull_secret': 'registry',
    'kubernetes__node_selector': ('zone=a', 'pool=any'),
    'kubernetes__learner_node_selector': ('pool=gpu',),
    'kubernetes__actor_node_selector': ('pool=spot',),
    'kubernetes__learner_tolerations': ('nvidia.com/gpu', 'team=rl'),
    'kubernetes__actor_tolerations': ('spot=true',),
    'kubernetes__user_id': 4711,
    'launch__grace_s': 12.5,
  },
  'TPU': {
    'kubernetes__accelerator_resource': 'google.com/tpu',
    'kubernetes__learner_node_selector': (
      'cloud.google.com/gke-tpu-accelerator=tpu-v5-lite-podslice',
      'cloud.google.com/gke-tpu-topology=2x2',
    ),
    'cluster__learner__accelerators': 4,
  },
}


# Against the schemas.


def _validate(document, version):
  """Raises where Kubernetes or JobSet knows a field not, or not like that."""
  if document['kind'] != 'JobSet':
    kubernetes_validate.validate(document, version, strict=True)
    return
  known = jobset_v1alpha2_job_set.JobsetV1alpha2JobSet.from_dict(document)
  # What a model does not know it forgets.
  if known.to_dict() != document:
    raise ValueError('JobSet has fields that its API does not')
  for each in document['spec']['replicatedJobs']:
    job = {'apiVersion': 'batch/v1', 'kind': 'Job', **each['template']}
    kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.parametrize('version', _VERSIONS)
@pytest.mark.parametrize('variant', _VARIANTS)
def test_every_field_is_known_to_kubernetes(variant, version):
  for document in _make(**_VARIANTS[variant]):
    _validate(document, version)


_POD = ('spec', 'replicatedJobs', 1, 'template', 'spec', 'template', 'spec')


@pytest.mark.parametrize(
  ('kind', 'path', 'old', 'new'),
  [
    ('JobSet', ('spec',), 'successPolicy', 'succesPolicy'),
    ('JobSet', ('spec', 'successPolicy'), 'operator', 'operation'),
    (
      'JobSet',
      ('spec', 'failurePolicy', 'rules', 0),
      'targetReplicatedJobs',
      'targetReplicatedJob',
    ),
    ('JobSet', ('spec', 'network'), 'subdomain', 'subDomain'),
    ('JobSet', ('spec', 'replicatedJobs', 0), 'replicas', 'replica'),
    ('JobSet', _POD[:5], 'completionMode', 'completionsMode'),
    ('JobSet', _POD[:5], 'podReplacementPolicy', 'podReplacement'),
    ('JobSet', _POD, 'enableServiceLinks', 'enableServicelinks'),
    ('JobSet', (*_POD, 'securityContext'), 'runAsNonRoot', 'runAsNonroot'),
    ('JobSet', (*_POD, 'containers', 0), 'volumeMounts', 'mounts'),
    (
      'JobSet',
      (*_POD, 'containers', 0, 'securityContext'),
      'readOnlyRootFilesystem',
      'readOnlyRootFileSystem',
    ),
    ('JobSet', (*_POD, 'volumes', 1), 'persistentVolumeClaim', 'claim'),
    ('NetworkPolicy', ('spec',), 'podSelector', 'selector'),
    ('NetworkPolicy', ('spec', 'ingress', 0), 'from', 'form'),
    ('ConfigMap', (), 'data', 'datas'),
    ('Secret', (), 'stringData', 'stringdata'),
  ],
)
@pytest.mark.parametrize('version', _VERSIONS)
def test_the_schemas_notice_a_misspelt_field(kind, path, old, new, version):
  document = copy.deepcopy(_by_kind(_make(), kind))
  part = document
  for step in path:
    part = part[step]
  part[new] = part.pop(old)
  with pytest.raises((ValueError, kubernetes_validate.ValidationError)):
    _validate(document, version)


@pytest.mark.parametrize(
  ('path', 'value'),
  [
    ((*_POD[:5], 'completions'), '1'),
    ((*_POD, 'terminationGracePeriodSeconds'), 1.5),
    ((*_POD, 'containers', 0, 'args'), '--group=learner'),
    (('spec', 'failurePolicy', 'maxRestarts'), 'none'),
    (('spec', 'replicatedJobs', 0, 'replicas'), '1'),
  ],
)
def test_the_schemas_notice_a_wrong_type(path, value):
  document = copy.deepcopy(_job_set())
  part = document
  for step in path[:-1]:
    part = part[step]
  assert path[-1] in part
  part[path[-1]] = value
  with pytest.raises((ValueError, kubernetes_validate.ValidationError)):
    _validate(document, '1.37')


# What the schemas do not say.


@pytest.mark.parametrize('variant', _VARIANTS)
def test_enumerations_and_quantities(variant):
  for group, job in _jobs(**_VARIANTS[variant]).items():
    assert job['completionMode'] == 'Indexed'
    assert job.get('podReplacementPolicy') in (None, 'Failed')
    pod = job['template']['spec']
    assert pod['restartPolicy'] == 'OnFailure'
    # It does not go with the policy above.
    assert 'podFailurePolicy' not in job
    (container,) = pod['containers']
    assert container['imagePullPolicy'] == 'IfNotPresent'
    assert container['name'] == group
    quantities = [
      *container['resources']['requests'].values(),
      *container['resources']['limits'].values(),
      *(
        volume['emptyDir']['sizeLimit']
        for volume in pod['volumes']
        if 'emptyDir' in volume
      ),
    ]
    for quantity in quantities:
      assert _QUANTITY.fullmatch(quantity)
    for toleration in pod.get('tolerations', []):
      has_value = toleration['operator'] == 'Equal'
      assert has_value or toleration['operator'] == 'Exists'
      assert has_value == ('value' in toleration)


def test_the_failure_policy_is_one_that_jobset_has():
  rule = jobset_v1alpha2_failure_policy_rule.JobsetV1alpha2FailurePolicyRule
  actions = rule.model_fields['action'].description
  known = re.search('Valid values are (.*)', actions).group(1).strip('.')
  for each in _job_set()['spec']['failurePolicy']['rules']:
    assert each['action'] in known.split(', ')
    assert re.fullmatch('[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?', each['name'])


def test_mounts_and_references_lead_somewhere():
  documents = _make()
  for pod in _pods().values():
    volumes = {volume['name']: volume for volume in pod['volumes']}
    (container,) = pod['containers']
    assert {mount['name'] for mount in container['volumeMounts']} == set(
      volumes
    )
    config_map = _by_kind(documents, 'ConfigMap')
    assert volumes['config']['configMap'] == {
      'name': config_map['metadata']['name']
    }
    environment = {each['name']: each for each in container['env']}
    folder, _, file = environment['BMG_CONFIG_FILE']['value'].rpartition('/')
    assert file in config_map['data']
    assert folder in [mount['mountPath'] for mount in container['volumeMounts']]
    reference = environment['BMG_RUN_TOKEN']['valueFrom']['secretKeyRef']
    secret = _by_kind(documents, 'Secret')
    assert reference['name'] == secret['metadata']['name']
    assert reference['key'] in secret['stringData']


def test_names_leave_room_for_what_jobset_appends():
  name = 'x' * dns.MAX_NAME
  (job_set,) = (
    each
    for each in _make(name, actors__num_actors=100_000)
    if each['kind'] == 'JobSet'
  )
  for each in job_set['spec']['replicatedJobs']:
    last = each['template']['spec']['completions'] - 1
    assert len(f'{name}-{each["name"]}-0-{last}-abcde') <= 63


def test_a_name_that_is_too_long_is_a_mistake():
  with pytest.raises(ValueError, match='no name'):
    _make('x' * (dns.MAX_NAME + 1))


# How pods find each other.


def _reachable(documents):
  """Addresses that JobSet, the containers and the policy make reachable."""
  job_set = _by_kind(documents, 'JobSet')
  name, network = job_set['metadata']['name'], job_set['spec']['network']
  assert network['enableDNSHostnames']
  policy = _by_kind(documents, 'NetworkPolicy')['spec']
  admitted = {each['port'] for each in policy['ingress'][0]['ports']}
  return {
    f'{name}-{each["name"]}-{replica}-{index}.{network["subdomain"]}:'
    f'{port["containerPort"]}'
    for each in job_set['spec']['replicatedJobs']
    for replica in range(each['replicas'])
    for index in range(each['template']['spec']['completions'])
    for container in each['template']['spec']['template']['spec']['containers']
    for port in container.get('ports', [])
    if port['containerPort'] in admitted
  }


@pytest.mark.parametrize('variant', _VARIANTS)
@pytest.mark.parametrize('name', ['pong', 'x' * dns.MAX_NAME])
def test_every_address_is_that_of_a_pod(name, variant):
  config = _config(**_VARIANTS[variant])
  addresses = {
    dns.address(schema.to_dict(config), node.group, node.index, name)
    for node in topology.nodes(schema.to_dict(config))
    # A relay serves its own pod alone.
    if node.group in (topology.REPLAY, topology.LEARNER)
  }
  assert len(addresses) == config.learner.num_hosts + config.replay.num_servers
  assert addresses == _reachable(manifests.make(config, name, 'token'))


def test_learner_hosts_reach_each_other_at_any_port():
  documents = manifests.make(_config(learner__num_hosts=2), 'pong', 'token')
  _, rule = _by_kind(documents, 'NetworkPolicy')['spec']['ingress']
  assert 'ports' not in rule
  (peer,) = rule['from']
  labels = peer['podSelector']['matchLabels']
  learner = _jobs()['learner']['template']['metadata']['labels']
  actor = _jobs()['actor']['template']['metadata']['labels']
  assert labels.items() <= learner.items()
  assert not labels.items() <= actor.items()


@pytest.mark.parametrize(
  ('num_actors', 'per_task'), [(1, 1), (5, 1), (5, 2), (6, 3), (1, 4)]
)
def test_every_actor_has_room_in_a_pod(num_actors, per_task):
  pods = _jobs(
    actors__num_actors=num_actors, cluster__actors_per_task=per_task
  )['actor']['completions']
  assert (pods - 1) * per_task < num_actors <= pods * per_task


def test_pods_run_their_task():
  for group, container in _containers().items():
    assert container['command'] == [
      'python',
      '-S',
      '-m',
      'bmg.launch.local.task',
    ]
    assert container['args'] == [
      '--workdir=/runs/pong',
      f'--group={group}',
      '--task_index=$(JOB_COMPLETION_INDEX)',
      '--addresses=dns',
    ]
    assert {'name': 'BMG_RUN_NAME', 'value': 'pong'} in container['env']


def test_pods_get_the_configuration_as_it_was_checked():
  text = _by_kind(_make(), 'ConfigMap')['data']['config.json']
  assert schema.from_config_dict(json.loads(text)) == _config()


# Who may do what.


@pytest.mark.parametrize('variant', _VARIANTS)
def test_pods_keep_to_the_restricted_standard(variant):
  fields = _VARIANTS[variant]
  for pod in _pods(**fields).values():
    context = pod['securityContext']
    assert context['runAsNonRoot'] is True
    user_id = _config(**fields).kubernetes.user_id
    assert context['runAsUser'] == context['runAsGroup'] == user_id != 0
    assert context['fsGroup'] == user_id
    assert context['seccompProfile'] == {'type': 'RuntimeDefault'}
    assert pod['automountServiceAccountToken'] is False
    for container in pod['containers']:
      assert container['securityContext'] == {
        'allowPrivilegeEscalation': False,
        'readOnlyRootFilesystem': True,
        'capabilities': {'drop': ['ALL']},
      }
      assert all('hostPort' not in port for port in container.get('ports', []))
    assert not {'hostNetwork', 'hostPID', 'hostIPC'} & set(pod)
    for volume in pod['volumes']:
      kinds = set(volume) - {'name'}
      assert kinds <= {'configMap', 'emptyDir', 'persistentVolumeClaim'}


def test_only_pods_of_the_run_are_let_in():
  documents = _make()
  policy = _by_kind(documents, 'NetworkPolicy')['spec']
  assert policy['policyTypes'] == ['Ingress']
  (rule,) = policy['ingress']
  assert rule['from'] == [{'podSelector': policy['podSelector']}]
  wanted = policy['podSelector']['matchLabels'].items()
  for job in _jobs().values():
    assert wanted <= job['template']['metadata']['labels'].items()
  # Another run's pods are strangers.
  for job in _by_kind(_make('boxing'), 'JobSet')['spec']['replicatedJobs']:
    labels = job['template']['spec']['template']['metadata']['labels']
    assert not wanted <= labels.items()
  # It is there before the pods are.
  assert [each['kind'] for each in documents] == [
    'NetworkPolicy',
    'Secret',
    'ConfigMap',
    'JobSet',
  ]


def test_the_token_is_in_the_secret_alone():
  for document in _make():
    has_token = 'secret token' in json.dumps(document)
    assert has_token == (document['kind'] == 'Secret')


# What pods get, and how long they live.


def test_resources_follow_the_configuration():
  containers = _containers(
    cluster__actors_per_task=4,
    cluster__actor__memory_gb=1.25,
    cluster__learner__accelerators=2,
  )
  assert containers['learner']['resources'] == {
    'requests': {'cpu': '8', 'memory': '32768Mi', 'nvidia.com/gpu': '2'},
    'limits': {'memory': '32768Mi', 'nvidia.com/gpu': '2'},
  }
  assert containers['actor']['resources'] == {
    'requests': {'cpu': '4', 'memory': '5120Mi'},
    'limits': {'memory': '5120Mi'},
  }


def test_nodes_follow_the_configuration():
  pods = _pods(**_VARIANTS['everything'])
  assert pods['learner']['nodeSelector'] == {'zone': 'a', 'pool': 'gpu'}
  assert pods['actor']['nodeSelector'] == {'zone': 'a', 'pool': 'spot'}
  assert pods['replay']['nodeSelector'] == {'zone': 'a', 'pool': 'any'}
  assert pods['learner']['tolerations'] == [
    {'key': 'nvidia.com/gpu', 'operator': 'Exists'},
    {'key': 'team', 'operator': 'Equal', 'value': 'rl'},
  ]
  assert pods['actor']['tolerations'] == [
    {'key': 'spot', 'operator': 'Equal', 'value': 'true'}
  ]
  assert 'tolerations' not in pods['replay']
  for pod in pods.values():
    assert pod['serviceAccountName'] == 'trainer'
    assert pod['imagePullSecrets'] == [{'name': 'registry'}]


def test_a_tpu_is_asked_for_by_its_chips():
  learner = _containers(**_VARIANTS['TPU'])['learner']
  assert learner['resources']['limits']['google.com/tpu'] == '4'
  assert 'nvidia.com/gpu' not in learner['resources']['limits']


def test_the_run_is_saved_where_it_outlives_its_pods():
  for group, pod in _pods(kubernetes__mount='/data').items():
    volumes = {volume['name']: volume for volume in pod['volumes']}
    claim = {'claimName': 'runs'}
    is_saved = volumes['run'].get('persistentVolumeClaim') == claim
    assert is_saved == (group != topology.ACTOR)
    assert volumes['shared-memory']['emptyDir']['medium'] == 'Memory'
    mounts = {
      mount['name']: mount['mountPath']
      for mount in pod['containers'][0]['volumeMounts']
    }
    assert mounts['run'] == '/data'
    assert mounts['shared-memory'] == '/dev/shm'


def test_replay_has_time_to_wait_for_the_learner():
  for group, pod in _pods(launch__grace_s=12.5).items():
    graces = 2 if group == topology.REPLAY else 1
    seconds = pod['terminationGracePeriodSeconds']
    assert graces * 12.5 + 10 <= seconds <= graces * 12.5 + 30


def test_the_learner_ends_the_run_and_actors_do_not():
  spec = _job_set()['spec']
  assert spec['successPolicy'] == {
    'operator': 'All',
    'targetReplicatedJobs': ['learner'],
  }
  actions = {
    group: rule['action']
    for rule in spec['failurePolicy']['rules']
    for group in rule['targetReplicatedJobs']
  }
  assert actions == {
    'actor': 'RestartJobAndIgnoreMaxRestarts',
    'evaluator': 'RestartJobAndIgnoreMaxRestarts',
    'learner': 'FailJobSet',
    'replay': 'FailJobSet',
  }


def test_there_are_never_two_learners():
  for group, job in _jobs().items():
    is_unique = group in (topology.LEARNER, topology.REPLAY)
    assert (job.get('podReplacementPolicy') == 'Failed') == is_unique
    assert job['backoffLimit'] >= 10
    assert (job['backoffLimit'] < 100) == is_unique


@pytest.mark.parametrize('preemptible', [True, False])
def test_what_may_be_evicted(preemptible):
  jobs = _jobs(cluster__preemptible_actors=preemptible)
  evictable = {
    group: annotation == 'true'
    for group, job in jobs.items()
    for annotation in job['template']['metadata']['annotations'].values()
  }
  assert evictable == {
    'replay': False,
    'learner': False,
    'actor': preemptible,
    'evaluator': True,
  }


# What is refused.


@pytest.mark.parametrize(
  ('field', 'value', 'problem'),
  [
    ('kubernetes.image', '', 'empty'),
    ('kubernetes.image', 'bmg', 'tag'),
    ('kubernetes.image', 'localhost:5000/bmg', 'tag'),
    ('kubernetes.image', 'registry.example/team/bmg:latest', 'latest'),
    ('kubernetes.image', 'bmg:', 'no reference'),
    ('kubernetes.image', 'BMG:1', 'no reference'),
    ('kubernetes.image', 'bmg@sha256:12', 'no reference'),
    ('kubernetes.image', 'bmg:1 ', 'no reference'),
    ('kubernetes.storage_claim', '', 'empty'),
    ('cluster.time_limit_minutes', 60, 'must be 0'),
    ('actors.num_actors', 100_001, 'actors_per_task'),
  ],
)
def test_what_does_not_do_is_named(field, value, problem):
  with pytest.raises(checks.ConfigError, match=problem) as error:
    _make(**{field.replace('.', '__'): value})
  assert error.value.field == field


@pytest.mark.parametrize(
  'image',
  [
    'bmg:1',
    'localhost:5000/bmg:v1.2_3',
    'ghcr.io/team/bmg-cuda:2026-11-25',
    f'bmg@sha256:{"a" * 64}',
    f'registry.example/bmg:latest@sha256:{"0" * 64}',
  ],
)
def test_images_that_will_do(image):
  assert _containers(kubernetes__image=image)['actor']['image'] == image


# As text.


@pytest.mark.parametrize('variant', _VARIANTS)
def test_yaml_says_the_same(variant):
  documents = _make(**_VARIANTS[variant])
  text = manifests.to_yaml(documents)
  assert list(yaml.safe_load_all(text)) == documents
  # Readable: no anchors, and config.json as it is.
  assert not re.search(r'^\s*[^"]*: [&*]id', text, re.MULTILINE)
  assert '    "num_actors":' in text
