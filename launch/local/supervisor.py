"""Watches over one node: starts it, restarts it, stops it, says how it is.

  python -S -m bmg.launch.local.supervisor --workdir=... --group=actor --index=0

One per node, the same wherever the node runs. Standard library only, so that it
starts at once and stays small. It follows the launch that its node belongs to,
which other machines may begin (`state/launch.json`): it waits for it, starts
the node anew when the next one begins, and leaves when it is over. Where its
node is a server, it picks the port and enters it in the address book.

What it knows is in `state/<node>.json`:

  state       waiting, starting, running, silent, restarting, stopping;
              finished, stopped, failed
  pid         of the node; `supervisor_pid` of this process
  starts      of this node in this working directory, ever
  restarts    since this supervisor started
  last_exit   how the node ended last, with its last words in `last_error`
"""

import argparse
import collections
import contextlib
import ctypes
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from bmg.launch.local import environment as environment_lib
from bmg.launch.program import address_book
from bmg.launch.run import files, node_log, topology

_POLL_S = 0.1
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
# A node that lived for so long starts again without delay.
_HEALTHY_S = 60.0
# Long before it is given up, one that shows no sign of life is named.
_SILENT_S = 15.0
# Files that all machines share are not asked more often.
_SHARED_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1


class Supervisor:
  """The life of one node, from its first start to its last end."""

  def __init__(
    self,
    workdir: str,
    node: topology.NodeId,
    command: Sequence[str],
    host: str = address_book.LOCAL_HOST,
  ) -> None:
    """Reads the run's configuration; starts nothing.

    Args:
      workdir: the run's folder.
      node: which node of the program.
      command: starts the node; --workdir, --group and --index are appended.
      host: what others reach this machine by.
    """
    self._workdir = workdir
    self._node = node
    self._command = [
      *command,
      f'--workdir={workdir}',
      f'--group={node.group}',
      f'--index={node.index}',
    ]
    self._config = files.read_json(files.config(workdir))
    if self._config is None:
      raise SystemExit(f'{files.config(workdir)} cannot be read')
    self._launch = self._config['launch']
    self._group = topology.GROUPS[node.group]
    self._log = node_log.NodeLog(files.log(workdir, node))
    self._heartbeat = files.heartbeat(workdir, node)
    # What it serves, as host:port.
    self._addresses: dict[str, str] = {}
    # Names that can be worked out need neither a book nor a common launch.
    self._is_alone = os.environ.get('BMG_ADDRESSES') == address_book.DNS
    if not self._is_alone:
      self._addresses = address_book.pick_addresses(self._config, (node,), host)
    self._joined = files.Launch()
    # Slurm sends SIGTERM to every process of a job. Nodes are deaf to it there,
    # or replay would be gone before the learner has saved.
    self._stop_signal = (
      signal.SIGUSR1 if 'SLURM_JOB_ID' in os.environ else signal.SIGTERM
    )
    self._stop_asked = False
    self._child: subprocess.Popen[bytes] | None = None
    self._started_at = 0.0
    # Why this supervisor has killed the node, if it has.
    self._kill_reason = ''
    self._delay_s = _FIRST_DELAY_S
    self._failures: collections.deque[float] = collections.deque()
    self._failed_starts = 0
    known = files.read_json(files.state(workdir, node), {})
    self._state = {
      'name': str(node),
      'state': files.STARTING,
      'pid': None,
      'supervisor_pid': os.getpid(),
      'starts': known.get('starts', 0),
      'restarts': 0,
      'last_exit': None,
      'last_error': None,
    }

  def ask_to_stop(self, *_: Any) -> None:
    """A signal handler: the rest happens in `run`."""
    self._stop_asked = True

  def run(self) -> int:
    """Keeps the node alive until it finishes, fails for good or is stopped.

    Returns:
      0 where it finished or stopped in order, else 1.
    """
    while self._await_launch():
      self._start()
      status = self._watch()
      if status is None:
        # Asked to stop, or a new launch has begun.
        continue
      if status == 0:
        return self._finish(files.FINISHED)
      self._note_failure(status)
      if self._is_hopeless(status):
        return self._finish(files.FAILED)
      self._back_off()
    return self._stop()

  def _say(self, **changes: Any) -> None:
    self._state.update(changes, time=time.time())
    # A full disk must not end the watch over the node.
    with contextlib.suppress(OSError):
      files.write_json(files.state(self._workdir, self._node), self._state)

  def _await_launch(self) -> bool:
    """Waits until the launch goes on; False where the node is to stop."""
    while not self._stop_asked:
      if self._is_alone:
        return True
      launch = files.read_launch(self._workdir)
      if launch.state == files.RUNNING:
        self._joined = launch
        for key, address in self._addresses.items():
          address_book.publish(self._workdir, key, address)
        return True
      if launch.state in files.FINAL_STATES:
        return False
      self._say(state=files.WAITING)
      time.sleep(_SHARED_POLL_S)
    return False

  def _next_launch(self) -> files.Launch | None:
    """Looks whether another launch has come.

    Returns:
      What there is instead of the launch that the node belongs to; None while
      that goes on.
    """
    if self._is_alone:
      return None
    launch = files.read_launch(self._workdir)
    # None at all: unreadable for the moment, as on a file server that is away.
    if launch in (self._joined, files.Launch()):
      return None
    return launch

  def _start(self) -> None:
    """Starts the node in a process group of its own."""
    self._heartbeat.unlink(missing_ok=True)
    self._kill_reason = ''
    environment = environment_lib.environment(
      self._node.group, self._config, os.environ
    )
    environment['BMG_INCARNATION'] = str(self._state['starts'])
    environment['BMG_STOP_SIGNAL'] = self._stop_signal.name
    self._state['starts'] += 1
    supervisor_pid = os.getpid()

    def prepare_child() -> None:
      os.setpgid(0, 0)
      for sig in {signal.SIGTERM, signal.SIGUSR2} - {self._stop_signal}:
        # For supervisors alone, though every process of a step gets it.
        signal.signal(sig, signal.SIG_IGN)
      die_with_parent(signal.SIGKILL, supervisor_pid)

    with self._log.open_for_start(self._state['starts']) as output:
      self._child = subprocess.Popen(
        self._command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=prepare_child,
      )
    self._started_at = time.time()
    self._say(state=files.STARTING, pid=self._child.pid)

  def _watch(self) -> int | None:
    """Waits for the node's end, or for silence, or for a stop.

    Returns:
      The node's exit status (negative: the signal that ended it), or None when
      a stop was asked for or the launch is over.
    """
    assert self._child is not None
    looked_at = -math.inf
    while not self._stop_asked:
      status = self._child.poll()
      if status is not None:
        self._kill_group()
        return status
      if time.monotonic() - looked_at < _SHARED_POLL_S:
        time.sleep(_POLL_S)
        continue
      looked_at = time.monotonic()
      launch = self._next_launch()
      if launch is not None:
        if launch.state not in files.FINAL_STATES:
          self._log.write('the launch was interrupted: killed')
          self._kill_group()
          self._child.wait()
        return None
      last_beat = self._last_heartbeat()
      silent_s = time.time() - max(last_beat, self._started_at)
      if last_beat:
        is_silent = silent_s > _SILENT_S
        state = files.SILENT if is_silent else files.RUNNING
        if state != self._state['state']:
          self._say(state=state)
      if silent_s > self._launch['heartbeat_timeout_s']:
        self._kill_reason = f'no sign of life for {silent_s:.0f} s: killed'
        self._log.write(self._kill_reason)
        self._kill_group()
        return self._child.wait()
      self._log.limit_size()
    return None

  def _last_heartbeat(self) -> float:
    """Time of the last heartbeat since the node started, else 0."""
    try:
      return self._heartbeat.stat().st_mtime
    except OSError:
      return 0.0

  def _note_failure(self, status: int) -> None:
    """Keeps how the node ended, and counts it."""
    now = time.time()
    self._failed_starts = (
      0 if self._last_heartbeat() else self._failed_starts + 1
    )
    self._failures.append(now)
    while now - self._failures[0] > self._launch['restart_window_s']:
      self._failures.popleft()
    if now - self._started_at > _HEALTHY_S:
      self._delay_s = _FIRST_DELAY_S
    last_words = self._kill_reason
    # Whom another's SIGKILL ends has had no time to say why.
    if not last_words and status != -signal.SIGKILL:
      last_words = self._log.last_words()
    self._log.write(f'ended: {describe_exit(status)}')
    self._state['last_exit'] = describe_exit(status)
    self._state['last_error'] = last_words or describe_exit(status)

  def _is_hopeless(self, status: int) -> bool:
    """Whether another start is pointless, or one too many."""
    if status == topology.FATAL_STATUS:
      return True
    if self._group.restart_always:
      return self._failed_starts > self._launch['max_restarts']
    return len(self._failures) > self._launch['max_restarts']

  def _back_off(self) -> None:
    """Waits before the next start; a stop ends the wait."""
    self._say(
      state=files.RESTARTING,
      pid=None,
      restarts=self._state['restarts'] + 1,
    )
    self._log.write(f'starts again in {self._delay_s:g} s')
    until = time.monotonic() + self._delay_s
    while time.monotonic() < until and not self._stop_asked:
      time.sleep(_POLL_S)
    self._delay_s = min(2 * self._delay_s, _LONGEST_DELAY_S)

  def _stop(self) -> int:
    """Stops the node in its turn: asks it, waits, kills it."""
    self._say(state=files.STOPPING)
    if self._child is None or self._child.poll() is not None:
      return self._finish(files.STOPPED)
    self._await_earlier_groups()
    self._child.send_signal(self._stop_signal)
    try:
      status = self._child.wait(timeout=self._launch['grace_s'])
    except subprocess.TimeoutExpired:
      self._kill_group()
      self._state['last_exit'] = describe_exit(self._child.wait())
      self._state['last_error'] = (
        f'did not stop within launch.grace_s = {self._launch["grace_s"]:g} s '
        'and was killed'
      )
      self._log.write(self._state['last_error'])
      return self._finish(files.FAILED)
    self._kill_group()
    # Before it handles signals, a node simply dies of this one; so be it.
    if status in (0, -self._stop_signal):
      return self._finish(files.STOPPED)
    self._note_failure(status)
    return self._finish(files.FAILED)

  def _await_earlier_groups(self) -> None:
    """Waits, within the grace, for the groups that have to stop first."""
    until = time.monotonic() + self._launch['grace_s']
    # One supervisor may start its stop before another one hears of it; their
    # last states alone tell that they are through.
    while time.monotonic() < until:
      states = [
        files.read_json(path, {}).get('state')
        for group in self._group.stops_after
        for path in pathlib.Path(self._workdir, 'state').glob(f'{group}-*.json')
      ]
      assert self._child is not None
      if self._child.poll() is not None or all(
        state in files.FINAL_STATES for state in states
      ):
        return
      time.sleep(_POLL_S)

  def _kill_group(self) -> None:
    """Kills the node and whatever it started."""
    assert self._child is not None
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._child.pid, signal.SIGKILL)

  def _finish(self, state: str) -> int:
    self._log.write(state)
    self._say(state=state, pid=None)
    return int(state == files.FAILED)


def die_with_parent(sig: int, parent_pid: int) -> None:
  """Lets the kernel send `sig` to this process when its parent ends."""
  libc = ctypes.CDLL(None, use_errno=True)
  if libc.prctl(_PR_SET_PDEATHSIG, sig, 0, 0, 0) != 0:
    raise OSError(ctypes.get_errno(), 'prctl(PR_SET_PDEATHSIG) failed')
  # The parent may have gone before the kernel knew of our wish.
  if os.getppid() != parent_pid:
    os.kill(os.getpid(), sig)


def describe_exit(status: int) -> str:
  """'exit status 1' or 'killed by SIGKILL'."""
  if status >= 0:
    return f'exit status {status}'
  return f'killed by {signal.Signals(-status).name}'


def _host(args: argparse.Namespace) -> str:
  if args.host != address_book.AUTO_HOST:
    return args.host
  config = files.read_json(files.config(args.workdir), {})
  return address_book.find_host(config.get('slurm', {}).get('interface', ''))


def main(argv: Sequence[str]) -> int:
  """Runs one supervisor to its end; returns its exit status."""
  parser = argparse.ArgumentParser(prog='bmg.launch.local.supervisor')
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--group', required=True, choices=tuple(topology.GROUPS))
  parser.add_argument('--index', required=True, type=int)
  parser.add_argument('--parent_pid', type=int, default=os.getppid())
  parser.add_argument('--host', default=address_book.LOCAL_HOST)
  parser.add_argument('command', nargs='*')
  args = parser.parse_args(argv)
  command = args.command or [sys.executable, '-m', 'bmg.launch.program']
  node = topology.NodeId(args.group, args.index)
  supervisor = Supervisor(args.workdir, node, command, _host(args))
  # A terminal's Ctrl-C is for the launcher, which stops everyone in order.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # SIGUSR2 is what srun hands on without killing.
  for sig in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
    signal.signal(sig, supervisor.ask_to_stop)
  die_with_parent(signal.SIGTERM, args.parent_pid)
  return supervisor.run()


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
