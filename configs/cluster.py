"""What a run takes of a cluster, and how Slurm or Kubernetes runs it there.

Nothing here changes what is learned, so all of it may differ when a run is
resumed. On one machine only the processes of `actors` and so on count.
"""

import dataclasses
import re

from configs import checks

_LABEL = re.compile(r'[a-z0-9]([-a-z0-9]*[a-z0-9])?')


@dataclasses.dataclass(frozen=True)
class Resources:
  """What the scheduler is asked for, for each process of a group."""

  cpus: int = 1
  memory_gb: float = 2.0
  # GPUs, or chips of a TPU host.
  accelerators: int = 0


@dataclasses.dataclass(frozen=True)
class Cluster:
  """How a run is cut into tasks, and what each is given."""

  replay: Resources = Resources(cpus=4, memory_gb=32.0)
  learner: Resources = Resources(cpus=8, memory_gb=32.0, accelerators=1)
  evaluator: Resources = Resources(cpus=2, memory_gb=4.0)
  actor: Resources = Resources(cpus=1, memory_gb=2.0)
  # Actor processes that are scheduled together: an array task of Slurm, a pod
  # of Kubernetes.
  actors_per_task: int = 1
  # Whether actors may be put where others can take the place from them. Learner
  # and replay never are.
  preemptible_actors: bool = True
  # Minutes that a job may take; 0 leaves it to the scheduler. The run stops and
  # saves `notice_s` before, and goes on in a new job.
  time_limit_minutes: int = 0
  notice_s: float = 120.0

  def __post_init__(self) -> None:
    for name in ('replay', 'learner', 'evaluator', 'actor'):
      resources = checks.GroupChecker(f'cluster.{name}', getattr(self, name))
      resources.at_least(1, 'cpus')
      resources.at_least(0, 'accelerators')
      resources.positive('memory_gb')
    group = checks.GroupChecker('cluster', self)
    group.at_least(1, 'actors_per_task')
    group.at_least(0, 'time_limit_minutes')
    group.positive('notice_s')
    checks.check(
      self.time_limit_minutes == 0
      or self.notice_s < 60 * self.time_limit_minutes,
      'cluster.notice_s',
      self.notice_s,
      'must be shorter than cluster.time_limit_minutes = '
      f'{self.time_limit_minutes}',
    )


@dataclasses.dataclass(frozen=True)
class Slurm:
  """Where Slurm runs it. What is empty is left to the cluster's defaults."""

  partition: str = ''
  # Of the actors' job array; empty: the same.
  actor_partition: str = ''
  account: str = ''
  qos: str = ''
  constraint: str = ''
  # A line of shell that each job runs first, to activate an environment, say,
  # and the Python of all processes; empty: the one that submits.
  setup: str = ''
  python: str = ''
  # More options of sbatch, such as '--exclude=node7'; for all jobs, and for
  # the actors' alone.
  options: tuple[str, ...] = ()
  actor_options: tuple[str, ...] = ()
  # Network interface whose address the servers are found under, such as 'ib0';
  # empty: what the node's name resolves to.
  interface: str = ''

  def __post_init__(self) -> None:
    for name in ('options', 'actor_options'):
      for option in getattr(self, name):
        checks.check(
          option.startswith('-') and '\n' not in option,
          f'slurm.{name}',
          option,
          "must be an option of sbatch, such as '--exclude=node7'",
        )
    for name in ('setup', 'partition', 'actor_partition', 'account', 'qos'):
      value = getattr(self, name)
      checks.check(
        '\n' not in value, f'slurm.{name}', value, 'must be one line'
      )


@dataclasses.dataclass(frozen=True)
class Kubernetes:
  """Where Kubernetes runs it."""

  # With a tag or digest; docs/cluster.md says how to build it.
  image: str = ''
  namespace: str = 'default'
  # Persistent volume claim of the run's folder, mounted at `mount`; many nodes
  # must be able to write to it (ReadWriteMany).
  storage_claim: str = ''
  mount: str = '/runs'
  # Resource that `accelerators` counts, and labels of nodes, as 'key=value'.
  accelerator_resource: str = 'nvidia.com/gpu'
  node_selector: tuple[str, ...] = ()
  learner_node_selector: tuple[str, ...] = ()
  actor_node_selector: tuple[str, ...] = ()
  # Taints that nodes of the learner, and of actors, may have: 'key' or
  # 'key=value'.
  learner_tolerations: tuple[str, ...] = ('nvidia.com/gpu',)
  actor_tolerations: tuple[str, ...] = ()
  service_account: str = ''
  image_pull_secret: str = ''
  # Of the user and the group in the pods; never 0.
  user_id: int = 1000

  def __post_init__(self) -> None:
    group = checks.GroupChecker('kubernetes', self)
    group.at_least(1, 'user_id')
    checks.check(
      _LABEL.fullmatch(self.namespace) is not None and len(self.namespace) < 64,
      'kubernetes.namespace',
      self.namespace,
      'must be a DNS label: lower-case letters, digits and hyphens',
    )
    checks.check(
      self.mount.startswith('/'),
      'kubernetes.mount',
      self.mount,
      'must be an absolute path',
    )
    for name in (
      'node_selector',
      'learner_node_selector',
      'actor_node_selector',
    ):
      for pair in getattr(self, name):
        checks.check(
          pair.count('=') == 1 and not pair.startswith('='),
          f'kubernetes.{name}',
          pair,
          "must be a label of nodes, as 'key=value'",
        )
