"""Names and atomic writing of the files that processes of a run share.

Standard library only: supervisors import it under `python -S`.
"""

import json
import os
import pathlib
import secrets
from typing import Any, NamedTuple

from bmg.launch.run import topology

# States of a node, and of a launch, which is waiting, running or through. A
# silent node runs, but has shown no sign of life for a while. Three are final.
WAITING = 'waiting'
STARTING = 'starting'
RUNNING = 'running'
SILENT = 'silent'
RESTARTING = 'restarting'
STOPPING = 'stopping'
FINISHED = 'finished'
STOPPED = 'stopped'
FAILED = 'failed'
FINAL_STATES = (FINISHED, STOPPED, FAILED)


def config(workdir: str) -> pathlib.Path:
  """The resolved configuration, every field."""
  return pathlib.Path(workdir, 'config.json')


def address(workdir: str, key: str) -> pathlib.Path:
  """The entry of one server in the address book, see `address_book`."""
  return pathlib.Path(workdir, 'state', 'addresses', f'{key}.json')


def launch(workdir: str) -> pathlib.Path:
  """How often the run was launched, and what became of the last launch."""
  return pathlib.Path(workdir, 'state', 'launch.json')


class Launch(NamedTuple):
  """One launch of a run."""

  # From 1; 0 if it was never launched.
  number: int = 0
  state: str = WAITING


def read_launch(workdir: str) -> Launch:
  """Returns the launch that goes on, or was the last."""
  return Launch(**read_json(launch(workdir), {}))


def launch_number(workdir: str) -> int:
  """Returns the number of the launch that goes on, or was the last."""
  return read_launch(workdir).number


def launch_state(workdir: str) -> str:
  """Returns the state of the launch that goes on, or was the last."""
  return read_launch(workdir).state


def begin_launch(workdir: str) -> None:
  """Begins the next launch: what the last one has left counts no more."""
  number = launch_number(workdir) + 1
  finished(workdir).unlink(missing_ok=True)
  stop_request(workdir).unlink(missing_ok=True)
  if not _token(workdir).exists():
    write_json(_token(workdir), {'token': new_token()}, mode=0o600)
  write_json(launch(workdir), Launch(number, RUNNING)._asdict())


def end_launch(workdir: str, state: str) -> None:
  """Ends the launch; with `WAITING`, another one is to follow by itself."""
  ended = read_launch(workdir)._replace(state=state)
  write_json(launch(workdir), ended._asdict())


def new_token() -> str:
  """Returns a token for a new run."""
  return secrets.token_hex(32)


def token(workdir: str) -> str:
  """Returns the run's token, which no other run has; '' before any launch.

  Clients show it to servers, which keeps apart runs that have come to each
  other's ports by mistake. Pods, which share no folder, have it in their
  environment.
  """
  given = os.environ.get('BMG_RUN_TOKEN')
  return given or read_json(_token(workdir), {}).get('token', '')


def _token(workdir: str) -> pathlib.Path:
  return pathlib.Path(workdir, 'state', 'token.json')


def finished(workdir: str) -> pathlib.Path:
  """Written by the learner once it has learned from all its frames."""
  return pathlib.Path(workdir, 'state', 'finished.json')


class Submission(NamedTuple):
  """The last submission of a run."""

  # As of --launcher; '' for a folder that is older than this record.
  backend: str = ''
  # The name of the machine.
  host: str = ''


def read_submission(workdir: str) -> Submission:
  """Returns where and to which backend the run was last submitted."""
  return Submission(**read_json(_submission(workdir), {}))


def write_submission(workdir: str, backend: str) -> None:
  """Records a submission from this machine: stop and watch ask its backend."""
  submission = Submission(backend, os.uname().nodename)
  write_json(_submission(workdir), submission._asdict())


def _submission(workdir: str) -> pathlib.Path:
  return pathlib.Path(workdir, 'state', 'backend.json')


def stop_request(workdir: str) -> pathlib.Path:
  """There where the user has asked for the launch to end for good."""
  return pathlib.Path(workdir, 'state', 'stop.json')


def jobs(workdir: str) -> pathlib.Path:
  """The jobs that were submitted to Slurm: `core_job` and `actor_job`."""
  return pathlib.Path(workdir, 'state', 'slurm.json')


def state(workdir: str, node: topology.NodeId) -> pathlib.Path:
  """What the supervisor of `node` last said about it."""
  return pathlib.Path(workdir, 'state', f'{node}.json')


def heartbeat(workdir: str, node: topology.NodeId) -> pathlib.Path:
  """Its modification time is the last sign of life of `node`."""
  return pathlib.Path(workdir, 'state', f'{node}.heartbeat')


def log(workdir: str, node: topology.NodeId) -> pathlib.Path:
  """Standard output and error of `node`."""
  return pathlib.Path(workdir, 'logs', f'{node}.log')


def lock(workdir: str) -> pathlib.Path:
  """Held by the launcher while a launch goes on; names its process."""
  return pathlib.Path(workdir, 'state', 'lock')


def lock_owner(workdir: str) -> str:
  """Returns the pid of the launcher that holds the lock, or held it last."""
  try:
    return lock(workdir).read_text(encoding='utf-8').strip()
  except OSError:
    return ''


def write_json(path: pathlib.Path, value: Any, mode: int = 0o666) -> None:
  """Writes `value` so that no reader ever sees half of it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  # Not by the process number, which processes on other machines may share.
  temporary = path.with_name(f'.{path.name}.{os.urandom(4).hex()}')
  temporary.touch(mode)
  temporary.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
  os.replace(temporary, path)


def read_json(path: pathlib.Path, default: Any = None) -> Any:
  """Returns what `write_json` wrote, or `default` where that is not there."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return default
