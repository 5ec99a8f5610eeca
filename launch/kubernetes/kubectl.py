"""Speaks to a cluster through kubectl, with a deadline on every call."""

import pathlib

from bmg.launch.run import subprocesses

JOB_SETS = 'jobsets.jobset.x-k8s.io'
_REQUEST_TIMEOUT_S = 15
_COMMAND_TIMEOUT_S = 60
# Pods are given time to save.
_DELETE_TIMEOUT_S = 300


def apply_command(folder: pathlib.Path) -> list[str]:
  """Returns the command that applies all manifests in `folder`."""
  return ['kubectl', 'apply', f'--filename={folder}']


def delete_command(namespace: str, name: str, *options: str) -> list[str]:
  """Returns the command that deletes a JobSet, if it is there."""
  return [
    *('kubectl', f'--namespace={namespace}', 'delete', JOB_SETS, name),
    *('--ignore-not-found', *options),
  ]


def get_command(namespace: str, *name: str) -> list[str]:
  """Returns the command that prints one JobSet, or all, as `name/state`."""
  one = '{.metadata.name}/{.status.terminalState}'
  of_all = f'{{range .items[*]}}{one} {{end}}'
  return [
    *('kubectl', f'--namespace={namespace}', 'get', JOB_SETS),
    *((*name, '--ignore-not-found') if name else ()),
    f'--output=jsonpath={one if name else of_all}',
  ]


class Kubectl:
  """The cluster that kubectl is set up for, and one namespace of it."""

  def __init__(self, namespace: str) -> None:
    self.namespace = namespace

  def find_problem(self) -> str | None:
    """Returns why no cluster can be reached; None if one can."""
    try:
      _run(['kubectl', 'get', '--raw=/version'], _REQUEST_TIMEOUT_S)
    except subprocesses.MissingCommandError:
      return 'there is no kubectl on this machine'
    except subprocesses.CommandError as error:
      return f'no cluster can be reached ({error})'
    return None

  def job_set_state(self, name: str) -> str | None:
    """Returns a terminal state, '' before, or None if there is no such JobSet.

    Raises:
      CommandError: the cluster refuses to tell; it may not know JobSets.
    """
    answer = _run(get_command(self.namespace, name), _REQUEST_TIMEOUT_S)
    return answer.partition('/')[2] if answer else None

  def delete_job_set(self, name: str, wait: bool = True) -> None:
    """Deletes a JobSet, which stays to be seen until its pods are gone.

    Args:
      name: of the JobSet.
      wait: until then.

    Raises:
      CommandError: the cluster refuses, or takes too long.
    """
    options = ('--cascade=foreground', f'--wait={"true" if wait else "false"}')
    _run(
      delete_command(self.namespace, name, *options),
      _DELETE_TIMEOUT_S if wait else _REQUEST_TIMEOUT_S,
    )

  def apply(self, folder: pathlib.Path, dry_run: bool = False) -> None:
    """Applies all manifests in `folder`.

    Args:
      folder: where they are.
      dry_run: only has the server check them.

    Raises:
      CommandError: the cluster refuses them, or does not answer.
    """
    command = apply_command(folder)
    if dry_run:
      command.append('--dry-run=server')
    _run(command, _REQUEST_TIMEOUT_S)


def _run(command: list[str], request_timeout_s: int) -> str:
  """Runs kubectl; returns what it prints.

  Raises:
    MissingCommandError: there is none.
    CommandError: it fails, or takes too long.
  """
  verb = next(word for word in command[1:] if not word.startswith('-'))
  return subprocesses.call(
    [*command, f'--request-timeout={request_timeout_s}s'],
    # Each of its requests has the one deadline, all together have the other.
    request_timeout_s + _COMMAND_TIMEOUT_S,
    name=f'kubectl {verb}',
  )
