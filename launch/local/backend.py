"""Runs on this machine: the command that submits one is its launcher."""

import os
import signal

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.local import launcher
from bmg.launch.run import backend, display, files, topology


class Processes:
  """One supervised process per node."""

  period_s = 0.2

  def check(self, config: schema.Config, workdir: str) -> None:
    """Accepts every configuration."""

  def describe(self, config: schema.Config, workdir: str) -> str:
    values = schema.to_dict(config)
    counts = {g: topology.num_nodes(values, g) for g in topology.GROUPS}
    return '\n'.join(
      [
        f'Run in {workdir}: {sum(counts.values())} nodes on this machine',
        *(
          f'  {count} x python -m bmg.launch.program --group={group}'
          for group, count in counts.items()
          if count
        ),
      ]
    )

  def submit(self, config: schema.Config, workdir: str, lock_fd: int) -> int:
    with display.Display(config, workdir) as shown:
      return launcher.LocalRun(config, workdir, shown, lock_fd).run()

  def state(self, workdir: str) -> backend.Status:
    state = files.launch_state(workdir)
    if launcher.in_use(workdir):
      return backend.Status(state)
    if state == files.WAITING:
      return backend.Status(files.STOPPED, 'it was never started')
    # Not every file system shows locks to other machines.
    host = files.read_submission(workdir).host
    if state == files.RUNNING and host == os.uname().nodename:
      return backend.Status(files.FAILED, 'its launcher was killed')
    return backend.Status(state)

  def stop(self, workdir: str) -> None:
    pid = files.lock_owner(workdir)
    try:
      # Else the number may be another process's by now, or another machine's.
      if not launcher.in_use(workdir):
        raise ProcessLookupError('nobody holds the lock of the folder')
      os.kill(int(pid), signal.SIGTERM)
    except (ValueError, ProcessLookupError, PermissionError) as error:
      raise cli.UsageError(
        f'--workdir={workdir}: its launcher, pid {pid or "unknown"}, is not on '
        f'this machine or not yours: {error}'
      ) from error


class Threads(Processes):
  """All nodes in this process."""

  def check(self, config: schema.Config, workdir: str) -> None:
    checks.check(
      config.learner.num_hosts == 1,
      'learner.num_hosts',
      config.learner.num_hosts,
      'must be 1 with --launcher=threads: hosts are processes',
    )

  def submit(self, config: schema.Config, workdir: str, lock_fd: int) -> int:
    # Imports Launchpad, which the launcher of processes can do without.
    from bmg.launch.local import threads

    with display.Display(config, workdir) as shown:
      return threads.run(config, workdir, shown)
