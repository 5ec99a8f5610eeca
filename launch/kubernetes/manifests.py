"""What a run is on Kubernetes: a JobSet, and what configures and guards it.

Each group of `launch.run.topology` is an Indexed Job of the JobSet, whose pods
run `launch.local.task`; servers have names in the DNS
(`launch.kubernetes.dns`). Learner, replay and evaluator share the run's folder
on a volume; each pod of actors has its own.
"""

import json
import math
import posixpath
import re
from collections.abc import Sequence
from typing import Any

import yaml

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch.kubernetes import dns
from bmg.launch.run import topology

Manifest = dict[str, Any]

# What a pod finds in its environment, besides JOB_COMPLETION_INDEX.
CONFIG_FILE_VARIABLE = 'BMG_CONFIG_FILE'
RUN_NAME_VARIABLE = 'BMG_RUN_NAME'
TOKEN_VARIABLE = 'BMG_RUN_TOKEN'

# The label that all objects of a run bear.
INSTANCE = 'app.kubernetes.io/instance'

_CONFIG_FOLDER = '/etc/bmg'
_SCRATCH = '/tmp'
_SCRATCH_SIZE = '4Gi'
_SHARED_MEMORY_SIZE = '1Gi'
# Beyond the grace, for supervisor and task to leave by themselves.
_MARGIN_S = 20
# The most that Kubernetes and JobSet take.
_MAX_PODS = 100_000
_NEVER_GIVE_UP = 2**31 - 1
# Supervisors restart processes themselves, and give up what is hopeless. So a
# pod of learner or replay fails because it was evicted, or for good, and must
# not hold an accelerator for ever then.
_BACKOFF_LIMIT = 20
# A reference of an image: registry, path, tag, digest.
_IMAGE = re.compile(
  r'([a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]+)?/)?'
  r'[a-z0-9]+([._/-]+[a-z0-9]+)*'
  r'(:(?P<tag>\w[\w.-]{0,127}))?'
  r'(@(?P<digest>sha256:[0-9a-f]{64}))?',
  re.ASCII,
)


def make(config: schema.Config, run_name: str, token: str) -> list[Manifest]:
  """Makes a run's manifests, in the order in which they are to be applied.

  Args:
    config: of the run.
    run_name: of the run on the cluster, see `dns.run_name`.
    token: the run's own secret.

  Returns:
    What guards the pods first, the pods last.

  Raises:
    ConfigError: a field does not do for Kubernetes.
  """
  check(config)
  if not dns.is_valid_name(run_name):
    raise ValueError(f'{run_name!r} is no name for a run on Kubernetes')
  return [
    _network_policy(config, run_name),
    _object(config, run_name, 'v1', 'Secret')
    | {'type': 'Opaque', 'stringData': {'token': token}},
    _object(config, run_name, 'v1', 'ConfigMap')
    | {
      'data': {'config.json': json.dumps(schema.to_dict(config), indent=2)},
    },
    _job_set(config, run_name),
  ]


def workdir(config: schema.Config, run_name: str) -> str:
  """Returns the run's folder as the pods see it."""
  return posixpath.join(config.kubernetes.mount, run_name)


def to_yaml(documents: Sequence[Manifest]) -> str:
  """Returns `documents` as one text of YAML."""
  return yaml.dump_all(
    documents, Dumper=_Dumper, sort_keys=False, explicit_start=True
  )


class _Dumper(yaml.SafeDumper):
  """Writes texts of several lines as such, and everything in full."""

  def ignore_aliases(self, data: Any) -> bool:
    return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
  style = '|' if '\n' in text else None
  return dumper.represent_scalar('tag:yaml.org,2002:str', text, style=style)


_Dumper.add_representer(str, _represent_text)


def check(config: schema.Config) -> None:
  """Raises `ConfigError` where a configuration does not do for Kubernetes."""
  kubernetes, cluster = config.kubernetes, config.cluster
  image = _IMAGE.fullmatch(kubernetes.image)
  if not kubernetes.image:
    problem = 'is empty: name the image that the pods run, with its tag'
  elif image is None:
    problem = 'is no reference of an image, as registry.example/bmg:1.0'
  elif image['digest'] is None and image['tag'] in (None, 'latest'):
    problem = (
      'must have a tag other than latest, or a digest: all pods of a run, and '
      'those that are started later, must run the same image'
    )
  else:
    problem = None
  checks.check(
    problem is None, 'kubernetes.image', kubernetes.image, problem or ''
  )
  checks.check(
    bool(kubernetes.storage_claim),
    'kubernetes.storage_claim',
    kubernetes.storage_claim,
    'is empty: name the persistent volume claim that the run is saved to',
  )
  checks.check(
    cluster.time_limit_minutes == 0,
    'cluster.time_limit_minutes',
    cluster.time_limit_minutes,
    'must be 0: Kubernetes would fail the run, instead of going on with it',
  )
  checks.check(
    topology.num_tasks(schema.to_dict(config), topology.ACTOR) <= _MAX_PODS,
    'actors.num_actors',
    config.actors.num_actors,
    f'makes more than {_MAX_PODS} pods; raise cluster.actors_per_task',
  )


def _labels(run_name: str, **more: str) -> dict[str, str]:
  return {
    'app.kubernetes.io/name': 'bmg',
    INSTANCE: run_name,
    **{f'app.kubernetes.io/{key}': value for key, value in more.items()},
  }


def _object(
  config: schema.Config, run_name: str, api_version: str, kind: str
) -> Manifest:
  return {
    'apiVersion': api_version,
    'kind': kind,
    'metadata': {
      'name': run_name,
      'namespace': config.kubernetes.namespace,
      'labels': _labels(run_name),
    },
  }


def _network_policy(config: schema.Config, run_name: str) -> Manifest:
  """Lets only pods of the run talk to it, and only to its servers."""

  def pods(**more: str) -> Manifest:
    return {'podSelector': {'matchLabels': _labels(run_name, **more)}}

  ports = [
    {'protocol': 'TCP', 'port': dns.port(name)}
    for name in topology.TASK_GROUPS
    if topology.GROUPS[name].address is not None
  ]
  rules: list[Manifest] = [{'from': [pods()], 'ports': ports}]
  if config.learner.num_hosts > 1:
    # Their devices choose ports as they like.
    rules.append({'from': [pods(component=topology.LEARNER)]})
  return _object(config, run_name, 'networking.k8s.io/v1', 'NetworkPolicy') | {
    'spec': {
      **pods(),
      'policyTypes': ['Ingress'],
      'ingress': rules,
    }
  }


def _job_set(config: schema.Config, run_name: str) -> Manifest:
  restarted = [
    name
    for name in topology.TASK_GROUPS
    if topology.GROUPS[name].restart_always
  ]
  needed = [name for name in topology.TASK_GROUPS if name not in restarted]
  return _object(config, run_name, 'jobset.x-k8s.io/v1alpha2', 'JobSet') | {
    'spec': {
      'network': {
        'enableDNSHostnames': True,
        'subdomain': run_name,
        # Clients look servers up while these are still starting.
        'publishNotReadyAddresses': True,
      },
      'successPolicy': {
        'operator': 'All',
        'targetReplicatedJobs': [topology.LEARNER],
      },
      'failurePolicy': {
        'maxRestarts': 0,
        'rules': [
          {
            'name': 'restartAlone',
            'action': 'RestartJobAndIgnoreMaxRestarts',
            'targetReplicatedJobs': restarted,
          },
          {
            'name': 'failTheRun',
            'action': 'FailJobSet',
            'targetReplicatedJobs': needed,
          },
        ],
      },
      'replicatedJobs': [
        {
          'name': group,
          'replicas': 1,
          'template': {'spec': _job(config, run_name, group)},
        }
        for group in topology.TASK_GROUPS
      ],
    }
  }


def _job(config: schema.Config, run_name: str, group: str) -> Manifest:
  restart_always = topology.GROUPS[group].restart_always
  num_pods = topology.num_tasks(schema.to_dict(config), group)
  evictable = restart_always and (
    group != topology.ACTOR or config.cluster.preemptible_actors
  )
  job: Manifest = {
    'completionMode': 'Indexed',
    'completions': num_pods,
    'parallelism': num_pods,
    'backoffLimit': _NEVER_GIVE_UP if restart_always else _BACKOFF_LIMIT,
  }
  if not restart_always:
    # Two learners would write the same checkpoints: on a node that cannot be
    # reached, the old one may still be alive.
    job['podReplacementPolicy'] = 'Failed'
  return job | {
    'template': {
      'metadata': {
        'labels': _labels(run_name, component=group),
        'annotations': {
          'cluster-autoscaler.kubernetes.io/safe-to-evict': (
            'true' if evictable else 'false'
          ),
        },
      },
      'spec': _pod(config, run_name, group),
    }
  }


def _pod(config: schema.Config, run_name: str, group: str) -> Manifest:
  kubernetes = config.kubernetes
  pod: Manifest = {
    'restartPolicy': 'OnFailure',
    'terminationGracePeriodSeconds': _grace_s(config, group),
    'automountServiceAccountToken': False,
    # Addresses of other services, as hundreds of environment variables.
    'enableServiceLinks': False,
    # A process that reaps orphans becomes the first one.
    'shareProcessNamespace': True,
    'securityContext': {
      'runAsNonRoot': True,
      'runAsUser': kubernetes.user_id,
      'runAsGroup': kubernetes.user_id,
      'fsGroup': kubernetes.user_id,
      'fsGroupChangePolicy': 'OnRootMismatch',
      'seccompProfile': {'type': 'RuntimeDefault'},
    },
    'containers': [_container(config, run_name, group)],
    'volumes': _volumes(config, run_name, group),
  }
  if kubernetes.service_account:
    pod['serviceAccountName'] = kubernetes.service_account
  if kubernetes.image_pull_secret:
    pod['imagePullSecrets'] = [{'name': kubernetes.image_pull_secret}]
  selector = kubernetes.node_selector + {
    topology.LEARNER: kubernetes.learner_node_selector,
    topology.ACTOR: kubernetes.actor_node_selector,
  }.get(group, ())
  if selector:
    pod['nodeSelector'] = dict(pair.split('=') for pair in selector)
  tolerations = {
    topology.LEARNER: kubernetes.learner_tolerations,
    topology.ACTOR: kubernetes.actor_tolerations,
  }.get(group, ())
  if tolerations:
    pod['tolerations'] = [_toleration(taint) for taint in tolerations]
  return pod


def _grace_s(config: schema.Config, group: str) -> int:
  # Replay waits for the learner's grace, then has its own.
  graces = 1 + bool(topology.GROUPS[group].stops_after)
  return math.ceil(graces * config.launch.grace_s) + _MARGIN_S


def _toleration(taint: str) -> dict[str, str]:
  key, has_value, value = taint.partition('=')
  if has_value:
    return {'key': key, 'operator': 'Equal', 'value': value}
  return {'key': key, 'operator': 'Exists'}


def _container(config: schema.Config, run_name: str, group: str) -> Manifest:
  kubernetes = config.kubernetes
  container: Manifest = {
    'name': group,
    'image': kubernetes.image,
    'imagePullPolicy': 'IfNotPresent',
    'command': ['python', '-S', '-m', 'bmg.launch.local.task'],
    'args': [
      f'--workdir={workdir(config, run_name)}',
      f'--group={group}',
      '--task_index=$(JOB_COMPLETION_INDEX)',
      '--addresses=dns',
    ],
    'env': [
      *(
        {'name': name, 'value': value}
        for name, value in {
          CONFIG_FILE_VARIABLE: f'{_CONFIG_FOLDER}/config.json',
          RUN_NAME_VARIABLE: run_name,
          # All that can be written to, besides the run's folder.
          'HOME': _SCRATCH,
          'XDG_CACHE_HOME': f'{_SCRATCH}/cache',
        }.items()
      ),
      {
        'name': TOKEN_VARIABLE,
        'valueFrom': {'secretKeyRef': {'name': run_name, 'key': 'token'}},
      },
    ],
    'resources': _resources(config, group),
    'securityContext': {
      'allowPrivilegeEscalation': False,
      'readOnlyRootFilesystem': True,
      'capabilities': {'drop': ['ALL']},
    },
    'volumeMounts': [
      {'name': 'config', 'mountPath': _CONFIG_FOLDER, 'readOnly': True},
      {'name': 'run', 'mountPath': kubernetes.mount},
      {'name': 'scratch', 'mountPath': _SCRATCH},
      {'name': 'shared-memory', 'mountPath': '/dev/shm'},
    ],
  }
  if topology.GROUPS[group].address is not None:
    container['ports'] = [
      {
        'name': topology.GROUPS[group].address,
        'containerPort': dns.port(group),
        'protocol': 'TCP',
      }
    ]
  return container


def _resources(config: schema.Config, group: str) -> Manifest:
  """Memory and accelerators are limited to what is asked for, CPUs are not."""
  each: schema.Resources = getattr(config.cluster, group)
  count = 1
  if group == topology.ACTOR:
    # A relay is given what an actor is.
    count = config.cluster.actors_per_task + config.cluster.relays
  fixed = {'memory': f'{math.ceil(1024 * each.memory_gb * count)}Mi'}
  if each.accelerators:
    resource = config.kubernetes.accelerator_resource
    fixed[resource] = str(each.accelerators * count)
  return {'requests': {'cpu': str(each.cpus * count), **fixed}, 'limits': fixed}


def _volumes(
  config: schema.Config, run_name: str, group: str
) -> list[Manifest]:
  if group == topology.ACTOR:
    # Heartbeats and logs of hundreds of actors are no job for a file server.
    run: Manifest = {'emptyDir': {'sizeLimit': _SCRATCH_SIZE}}
  else:
    claim = config.kubernetes.storage_claim
    run = {'persistentVolumeClaim': {'claimName': claim}}
  return [
    {'name': 'config', 'configMap': {'name': run_name}},
    {'name': 'run', **run},
    {'name': 'scratch', 'emptyDir': {'sizeLimit': _SCRATCH_SIZE}},
    {
      'name': 'shared-memory',
      'emptyDir': {'medium': 'Memory', 'sizeLimit': _SHARED_MEMORY_SIZE},
    },
  ]
