"""Runs the pods of a JobSet on this machine, each on a network of its own.

It takes the manifests that a cluster would get, and does what is needed of a
kubelet, a DNS and the controllers of Job and JobSet: network namespaces with an
address each, names in /etc/hosts, volumes as bind mounts, the environment,
restarts, the success policy. It schedules nothing, limits nothing and knows no
images: pods see this machine's files. Needs root (CAP_NET_ADMIN,
CAP_SYS_ADMIN).
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

_NETWORK = '10.77.{}'
_RESTART_DELAY_S = 1.0


def problem() -> str:
  """Returns why this machine cannot do it; '' if it can."""
  try:
    subprocess.run(
      ['unshare', '--net', '--mount', 'ip', 'link', 'add', 'type', 'bridge'],
      check=True,
      capture_output=True,
      timeout=20,
    )
  except (OSError, subprocess.SubprocessError) as error:
    return f'no namespaces here: {error}'
  for path in map(pathlib.Path, (__file__, sys.prefix)):
    if path.resolve().is_relative_to('/tmp'):
      return f'pods have a /tmp of their own, which hides {path}'
  return ''


@dataclasses.dataclass
class Pod:
  """One pod with its only container."""

  group: str
  index: int
  host: str
  address: str
  spec: dict
  process: subprocess.Popen | None = None
  starts: int = 0
  completed: bool = False
  next_start: float = 0.0


class ToyKubelet:
  """A context manager; pods run inside it."""

  def __init__(self, documents: list[dict], folder: pathlib.Path):
    """Reads the manifests; starts nothing.

    Args:
      documents: of one run.
      folder: gets the volumes and the pods' output.
    """
    by_kind = {document['kind']: document for document in documents}
    self._folder = folder
    self._config = by_kind['ConfigMap']['data']
    self._secret = by_kind['Secret']['stringData']
    self._job_set = by_kind['JobSet']
    name = self._job_set['metadata']['name']
    # A bridge's name has at most 15 characters.
    self._bridge = f'bmg{os.getpid() % 100_000}'
    self._network = _NETWORK.format(os.getpid() % 250)
    self.pods = []
    for job in self._job_set['spec']['replicatedJobs']:
      spec = job['template']['spec']
      for index in range(spec['completions']):
        self.pods.append(
          Pod(
            job['name'],
            index,
            f'{name}-{job["name"]}-0-{index}',
            f'{self._network}.{10 + len(self.pods)}',
            spec['template']['spec'],
          )
        )
    self._hosts = '127.0.0.1 localhost\n' + ''.join(
      f'{pod.address} {pod.host}.{name} {pod.host}\n' for pod in self.pods
    )

  def __enter__(self) -> 'ToyKubelet':
    _run('ip', 'link', 'add', self._bridge, 'type', 'bridge')
    _run('ip', 'address', 'add', f'{self._network}.1/24', 'dev', self._bridge)
    _run('ip', 'link', 'set', self._bridge, 'up')
    for pod in self.pods:
      self._make_network(pod)
    return self

  def __exit__(self, *_: object) -> None:
    for pod in self.pods:
      self.kill(pod)
      _run('ip', 'netns', 'delete', self._namespace(pod), check=False)
    _run('ip', 'link', 'delete', self._bridge, check=False)

  def pod(self, group: str, index: int = 0) -> Pod:
    return next(
      pod for pod in self.pods if (pod.group, pod.index) == (group, index)
    )

  def kill(self, pod: Pod) -> None:
    """Kills all processes of a pod, as the loss of its node would."""
    if pod.process is not None and pod.process.poll() is None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(pod.process.pid, signal.SIGKILL)
      pod.process.wait()

  def step(self) -> bool:
    """Starts what is to run; returns whether the JobSet has succeeded."""
    for pod in self.pods:
      if pod.process is not None and pod.process.poll() is not None:
        pod.completed = pod.process.returncode == 0
        pod.process = None
        pod.next_start = time.monotonic() + _RESTART_DELAY_S
      if (
        pod.process is None
        and not pod.completed
        and time.monotonic() >= pod.next_start
      ):
        self._start(pod)
    needed = self._job_set['spec']['successPolicy']['targetReplicatedJobs']
    return all(pod.completed for pod in self.pods if pod.group in needed)

  def output(self, pod: Pod) -> str:
    return self._log(pod).read_text()

  def _log(self, pod: Pod) -> pathlib.Path:
    return self._folder / f'{pod.host}.log'

  def _namespace(self, pod: Pod) -> str:
    return f'{self._bridge}-{pod.host}'

  def _make_network(self, pod: Pod) -> None:
    namespace = self._namespace(pod)
    inside = f'{self._bridge}p{self.pods.index(pod)}'
    _run('ip', 'netns', 'add', namespace)
    _run(
      *('ip', 'link', 'add', f'{inside}h', 'type', 'veth'),
      *('peer', 'name', inside, 'netns', namespace),
    )
    _run('ip', 'link', 'set', f'{inside}h', 'master', self._bridge, 'up')
    within = ('ip', '-n', namespace)
    _run(*within, 'address', 'add', f'{pod.address}/24', 'dev', inside)
    _run(*within, 'link', 'set', inside, 'up')
    _run(*within, 'link', 'set', 'lo', 'up')

  def _start(self, pod: Pod) -> None:
    container = pod.spec['containers'][0]
    environment = {
      'PATH': f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}',
      'JOB_COMPLETION_INDEX': str(pod.index),
    }
    for variable in container['env']:
      value = variable.get('value')
      if value is None:
        value = self._secret[variable['valueFrom']['secretKeyRef']['key']]
      environment[variable['name']] = value
    command = [
      argument.replace('$(JOB_COMPLETION_INDEX)', str(pod.index))
      for argument in (*container['command'], *container['args'])
    ]
    pod.starts += 1
    with self._log(pod).open('a') as log:
      pod.process = subprocess.Popen(
        [
          *('nsenter', f'--net=/run/netns/{self._namespace(pod)}', '--'),
          *('unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child'),
          *('sh', '-ec', self._prepare(pod), 'pod', *command),
        ],
        cwd=pathlib.Path(__file__).resolve().parents[2],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )

  def _prepare(self, pod: Pod) -> str:
    """Returns the script that makes a pod's files, then runs its command."""
    overlays = self._folder / 'overlays' / pod.host
    lines = ['mount --make-rprivate /', f'hostname {pod.host}', 'umask 0']
    for name in ('etc', 'mnt'):
      upper, work = overlays / f'{name}-upper', overlays / f'{name}-work'
      upper.mkdir(parents=True, exist_ok=True)
      work.mkdir(exist_ok=True)
      lines.append(
        f'mount -t overlay overlay -o lowerdir=/{name},upperdir={upper},'
        f'workdir={work} /{name}'
      )
    hosts = overlays / 'hosts'
    hosts.write_text(self._hosts)
    lines += [f'mount --bind {hosts} /etc/hosts', 'mount -t proc proc /proc']
    volumes = {volume['name']: volume for volume in pod.spec['volumes']}
    mounts = pod.spec['containers'][0]['volumeMounts']
    # What is under /tmp here must be mounted elsewhere before /tmp is covered.
    for mount in sorted(mounts, key=lambda mount: mount['mountPath'] == '/tmp'):
      source = self._volume(pod, volumes[mount['name']])
      lines += [
        f'mkdir -p {mount["mountPath"]}',
        f'mount --bind {source} {mount["mountPath"]}',
      ]
    return '\n'.join([*lines, 'exec "$@"'])

  def _volume(self, pod: Pod, volume: dict) -> pathlib.Path:
    if 'persistentVolumeClaim' in volume:
      path = (
        self._folder / 'claims' / volume['persistentVolumeClaim']['claimName']
      )
    else:
      path = self._folder / 'volumes' / pod.host / volume['name']
    path.mkdir(parents=True, exist_ok=True)
    if 'configMap' in volume:
      for name, text in self._config.items():
        (path / name).write_text(text)
    return path


def _run(*command: str, check: bool = True) -> None:
  subprocess.run(command, check=check, capture_output=not check, timeout=20)
