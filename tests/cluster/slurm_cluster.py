"""A Slurm of several nodes on this one machine, without root or systemd.

  python -m tests.cluster.slurm_cluster FOLDER [--nodes=4]

starts it in the foreground, says how to use it, and ends it with Ctrl-C. Debian
has what it needs in the packages slurm-wlm and munge. Nothing outside FOLDER is
written to. Nodes differ by their loopback addresses, 127.0.1.1 and on.
"""

import argparse
import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

_COMMANDS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'squeue', 'scontrol')
_TIMEOUT_S = 60.0
_CONF = """
ClusterName=bmg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits for its credentials to expire: by default two minutes.
AuthInfo=socket={root}/munge/munge.sock,cred_expire=6
CredType=cred/munge
StateSaveLocation={root}/ctld
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SwitchType=switch/none
MpiDefault=none
KillWait=30
MinJobAge=300
JobRequeue=1
SlurmdTimeout=30
SlurmctldTimeout=30
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
PartitionName=main Nodes=n[1-{nodes}] Default=YES PriorityTier=9 PreemptMode=OFF
PartitionName=spot Nodes=n[2-{nodes}] PriorityTier=1 PreemptMode=REQUEUE
"""
_NODE = (
  'NodeName=n{i} NodeHostname={host} NodeAddr=127.0.1.{i} Port={port} CPUs=16 '
  'RealMemory=64000 State=UNKNOWN'
)


def missing() -> list[str]:
  """Returns the commands that a cluster needs and this machine lacks."""
  return [command for command in _COMMANDS if _find(command) is None]


def _find(command: str) -> str | None:
  path = os.pathsep.join((os.environ.get('PATH', ''), '/usr/sbin', '/sbin'))
  return shutil.which(command, path=path)


class SlurmCluster:
  """A running cluster; `environment` is what its commands need."""

  def __init__(self, root: pathlib.Path, num_nodes: int = 4):
    """Writes the configuration; starts nothing.

    Args:
      root: a folder of its own, with a short path (sockets are in it).
      num_nodes: named n1 and on.
    """
    self._root = root
    self._num_nodes = num_nodes
    for name in ('munge', 'ctld', 'log'):
      (root / name).mkdir(parents=True, exist_ok=True)
    for index in range(1, num_nodes + 1):
      (root / f'spool.n{index}').mkdir(exist_ok=True)
    root.chmod(0o755)
    (root / 'munge').chmod(0o755)
    key = root / 'munge' / 'munge.key'
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition('.')[0]
    values = {
      'root': root,
      'host': host,
      'user': getpass.getuser(),
      'nodes': num_nodes,
    }
    ports = _free_ports(num_nodes + 1)
    nodes = [
      _NODE.format(i=index, host=host, port=ports[index])
      for index in range(1, num_nodes + 1)
    ]
    self._conf = root / 'slurm.conf'
    # Partitions name nodes, which must be known by then.
    head, mark, partitions = _CONF.partition('PartitionName=main')
    text = '\n'.join([head, *nodes, mark + partitions])
    self._conf.write_text(text.format(port=ports[0], **values))
    if not pathlib.Path('/sys/fs/cgroup/cgroup.controllers').exists():
      (root / 'cgroup.conf').write_text('CgroupPlugin=cgroup/v1\n')
    self.environment = {**os.environ, 'SLURM_CONF': str(self._conf)}

  def __enter__(self) -> 'SlurmCluster':
    munge = self._root / 'munge'
    try:
      self._daemon(
        *('munged', '--force', f'--key-file={munge}/munge.key'),
        *(f'--socket={munge}/munge.sock', f'--pid-file={munge}/munged.pid'),
        *(f'--log-file={munge}/munged.log', f'--seed-file={munge}/munged.seed'),
      )
      self._daemon('slurmctld', '-c', '-f', str(self._conf))
      for index in range(1, self._num_nodes + 1):
        self._daemon('slurmd', '-N', f'n{index}', '-f', str(self._conf))
      self._await_nodes()
    except BaseException:
      self.__exit__()
      raise
    return self

  def __exit__(self, *_: object) -> None:
    for path in (
      *self._root.glob('slurmd.*.pid'),
      self._root / 'slurmctld.pid',
      self._root / 'munge' / 'munged.pid',
    ):
      with contextlib.suppress(OSError, ValueError):
        os.kill(int(path.read_text()), signal.SIGTERM)

  def run(self, *command: str) -> str:
    """Runs one of Slurm's commands; returns what it prints."""
    return subprocess.run(
      command,
      env=self.environment,
      check=True,
      capture_output=True,
      text=True,
      timeout=_TIMEOUT_S,
    ).stdout.strip()

  def _daemon(self, command: str, *args: str) -> None:
    path = _find(command)
    assert path is not None
    subprocess.run(
      [path, *args],
      env=self.environment,
      check=True,
      stdin=subprocess.DEVNULL,
      timeout=_TIMEOUT_S,
    )

  def _await_nodes(self) -> None:
    until = time.monotonic() + _TIMEOUT_S
    states = ''
    while time.monotonic() < until:
      with contextlib.suppress(subprocess.CalledProcessError):
        states = self.run('sinfo', '-h', '-N', '-p', 'main', '-o', '%T')
      if states.split() == ['idle'] * self._num_nodes:
        return
      time.sleep(0.1)
    raise TimeoutError(f'nodes are not idle after {_TIMEOUT_S:g} s: {states}')


def _free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for each in sockets:
      each.bind(('127.0.0.1', 0))
    return [each.getsockname()[1] for each in sockets]


def main() -> None:
  parser = argparse.ArgumentParser(prog='tests.cluster.slurm_cluster')
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--nodes', type=int, default=4)
  args = parser.parse_args()
  if missing():
    raise SystemExit(f'missing: {", ".join(missing())}')
  with SlurmCluster(args.folder.resolve(), args.nodes) as cluster:
    print(cluster.run('sinfo'))
    print(f'export SLURM_CONF={cluster.environment["SLURM_CONF"]}')
    print('Ctrl-C ends it.', flush=True)
    with contextlib.suppress(KeyboardInterrupt):
      signal.pause()


if __name__ == '__main__':
  main()
