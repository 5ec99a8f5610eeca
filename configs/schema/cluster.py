"""What a run takes of a cluster, and how Slurm or Kubernetes runs it there.

Nothing here changes what is learned, so all of it may differ when a run is
resumed. On one machine only the processes of `actors` and so on count.
"""

import dataclasses
import posixpath
import re

from bmg.configs.schema import checks

# Names of Kubernetes: a label of the DNS; several, with dots; values and keys,
# which labels of nodes, taints and resources have.
_LABEL = r'(?![-a-z0-9]{64})[a-z0-9]([-a-z0-9]*[a-z0-9])?'
_DOTTED = rf'(?![^/]{{254}}){_LABEL}(\.{_LABEL})*'
_VALUE = r'(?![-\w.]{64})[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?'
_KEY = rf'({_DOTTED}/)?{_VALUE}'
_PAIR = rf'{_KEY}=({_VALUE})?'
_TAINT = rf'{_KEY}(=({_VALUE})?)?'
# What mounts must not hide: the image's own, and what every pod gets.
_TAKEN = ('/', '/bmg', '/dev', '/etc', '/opt', '/proc', '/sys', '/tmp', '/usr')


@dataclasses.dataclass(frozen=True)
class Resources:
  """What the scheduler is asked for, for each process of a group."""

  cpus: checks.Count = 1
  memory_gb: checks.Positive = 2.0
  # GPUs, or chips of a TPU host.
  accelerators: checks.Natural = 0


@dataclasses.dataclass(frozen=True)
class Cluster:
  """How a run is cut into tasks, and what each is given."""

  replay: Resources = Resources(cpus=4, memory_gb=32.0)
  learner: Resources = Resources(cpus=8, memory_gb=32.0, accelerators=1)
  evaluator: Resources = Resources(cpus=2, memory_gb=4.0)
  actor: Resources = Resources(cpus=1, memory_gb=2.0)
  # Actor processes that are scheduled together: an array task of Slurm, a pod
  # of Kubernetes.
  actors_per_task: checks.Count = 1
  # Whether the actors of a task share a process that asks the learner for each
  # version of the parameters once: for more hosts than a few tens.
  relays: bool = False
  # How old the answer may be that it hands on, and so how rarely it asks. Small
  # beside the time that an actor takes for its unrolls, it costs no freshness.
  relay_period_s: checks.Positive = 0.1
  # Whether actors may be put where others can take the place from them. Learner
  # and replay never are.
  preemptible_actors: bool = True
  # Minutes that a job may take; 0 leaves it to the scheduler. The run stops and
  # saves `notice_s` before, and goes on in a new job.
  time_limit_minutes: checks.Natural = 0
  notice_s: checks.Positive = 120.0
  # How often actors whose run has paused ask Slurm whether it will go on.
  patience_s: checks.Positive = 60.0

  def __post_init__(self) -> None:
    for name in ('replay', 'learner', 'evaluator', 'actor'):
      checks.check_fields(f'cluster.{name}', getattr(self, name))
    checks.check_fields('cluster', self)
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
  # Nodes that the core job (replay, learner, evaluator) takes: 1, or one for
  # each of its processes.
  core_nodes: int = 1
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

  # With a tag or digest; docs/kubernetes.md says how to build it.
  image: str = ''
  namespace: str = 'default'
  # Persistent volume claim of the run's folder, mounted at `mount`; many nodes
  # must be able to write to it (ReadWriteMany).
  storage_claim: str = ''
  mount: str = '/runs'
  # What `accelerators` counts: 'nvidia.com/gpu', or 'google.com/tpu' for chips.
  accelerator_resource: str = 'nvidia.com/gpu'
  # Labels that nodes must have, as 'key=value'; a group's own win.
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
    checks.check(
      1 <= self.user_id < 2**31,
      'kubernetes.user_id',
      self.user_id,
      'must lie in [1, 2^31): root is not allowed',
    )
    self._check_matches(_LABEL, 'a label of the DNS', 'namespace')
    self._check_matches(_KEY, 'the name of a resource', 'accelerator_resource')
    for name in ('storage_claim', 'service_account', 'image_pull_secret'):
      if getattr(self, name):
        self._check_matches(_DOTTED, 'a name of Kubernetes', name)
    for name in (
      'node_selector',
      'learner_node_selector',
      'actor_node_selector',
    ):
      self._check_matches(_PAIR, "a label of nodes, as 'key=value'", name)
    for name in ('learner_tolerations', 'actor_tolerations'):
      self._check_matches(_TAINT, "a taint, as 'key' or 'key=value'", name)
    checks.check(
      self.mount.startswith('/')
      and posixpath.normpath(self.mount) == self.mount
      and ':' not in self.mount,
      'kubernetes.mount',
      self.mount,
      "must be an absolute path, without ':' and '..', nor '/' at its end",
    )
    top = '/' + self.mount.split('/')[1]
    checks.check(
      top not in _TAKEN,
      'kubernetes.mount',
      self.mount,
      f'must not lie in {top}, which the image needs',
    )

  def _check_matches(self, pattern: str, what: str, name: str) -> None:
    """Checks a field, or each of its elements."""
    field = getattr(self, name)
    for value in field if isinstance(field, tuple) else (field,):
      checks.check(
        re.fullmatch(pattern, value, re.ASCII) is not None,
        f'kubernetes.{name}',
        value,
        f'must be {what}',
      )
