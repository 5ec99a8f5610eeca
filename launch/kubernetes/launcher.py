"""Puts a run on Kubernetes: writes its manifests, has kubectl apply them.

docs/kubernetes.md describes it for users.
"""

import os
import pathlib
import shlex
from collections.abc import Sequence

import yaml

from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.kubernetes import dns, kubectl, manifests
from bmg.launch.run import backend, files, subprocesses

# By the terminal state of a JobSet.
_STATES = {'Completed': files.FINISHED, 'Failed': files.FAILED}


class Kubernetes:
  """Has kubectl apply a run's manifests, and delete its JobSet."""

  period_s = 5.0

  def check(self, config: schema.Config, workdir: str) -> None:
    manifests.check(config)

  def describe(self, config: schema.Config, workdir: str) -> str:
    return manifests.to_yaml(_make(config, workdir))

  def submit(self, config: schema.Config, workdir: str, lock_fd: int) -> int:
    """Writes the manifests into the run's folder and applies them.

    Returns 1 where the cluster refuses the run, or there is none at hand and
    the user was told what to do.
    """
    name, path = dns.run_name(workdir), folder(workdir)
    documents = _make(config, workdir)
    cluster = kubectl.Kubectl(config.kubernetes.namespace)
    problem = cluster.find_problem()
    try:
      if problem is None:
        _clear_the_way(cluster, name, workdir)
      _write(path, documents)
      print(f'Wrote the manifests of {name!r} into {path}')
      if problem is not None:
        command = shlex.join(kubectl.apply_command(path))
        print(f'Not applied: {problem}. To start the run: {command}')
        return 1
      # The whole is checked by the server before any of it is there.
      cluster.apply(path, dry_run=True)
      cluster.apply(path)
    except subprocesses.CommandError as error:
      print(f'error: {error}')
      return 1
    print(
      f'Applied {name!r}. Its folder is {manifests.workdir(config, name)} on '
      f'the claim {config.kubernetes.storage_claim!r}.\n'
      f'  watch it: kubectl --namespace={cluster.namespace} get pods '
      f'--selector={manifests.INSTANCE}={name}\n'
      f'  stop it:  python -m bmg stop --workdir={workdir}'
    )
    return 0

  def state(self, workdir: str) -> backend.Status:
    cluster, name = _find(workdir)
    try:
      state = cluster.job_set_state(name)
    except subprocesses.CommandError as error:
      return backend.Status(backend.UNKNOWN, str(error))
    if state is None:
      return backend.Status(
        files.STOPPED,
        f'there is no JobSet {name!r} in the namespace {cluster.namespace!r}',
      )
    return backend.Status(_STATES.get(state, files.RUNNING))

  def stop(self, workdir: str) -> None:
    cluster, name = _find(workdir)
    cluster.delete_job_set(name, wait=False)
    print(
      f'Deleted the JobSet {name!r} in the namespace {cluster.namespace!r}; '
      'its pods save and leave'
    )


def folder(workdir: str) -> pathlib.Path:
  """Returns the folder of the run's manifests."""
  return pathlib.Path(os.path.abspath(workdir), 'kubernetes')


def _make(config: schema.Config, workdir: str) -> list[manifests.Manifest]:
  token = _run_token(folder(workdir))
  return manifests.make(config, dns.run_name(workdir), token)


def _find(workdir: str) -> tuple[kubectl.Kubectl, str]:
  """Returns where the JobSet of a run is, and its name there."""
  values = files.read_json(files.config(workdir), {})
  namespace = values['kubernetes']['namespace']
  return kubectl.Kubectl(namespace), dns.run_name(workdir)


def _run_token(folder: pathlib.Path) -> str:
  """Returns the token that the run has, or a new one."""
  try:
    secret = yaml.safe_load(_path(folder, 'Secret').read_text('utf-8'))
    return secret['stringData']['token']
  except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
    return files.new_token()


def _path(folder: pathlib.Path, kind: str) -> pathlib.Path:
  # kubectl applies the files of a folder in the order of their names.
  order = ('NetworkPolicy', 'Secret', 'ConfigMap', 'JobSet').index(kind)
  return folder / f'{order}-{kind.lower()}.yaml'


def _write(
  folder: pathlib.Path, documents: Sequence[manifests.Manifest]
) -> None:
  """Writes one file for each of `documents`.

  Raises:
    UsageError: the folder cannot be written to.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents:
      path = _path(folder, document['kind'])
      # One of them holds a secret.
      path.touch(mode=0o600)
      path.write_text(manifests.to_yaml([document]), encoding='utf-8')
  except OSError as error:
    raise cli.UsageError(
      f'--workdir={folder.parent}: cannot be written to: {error.strerror}'
    ) from error


def _clear_the_way(cluster: kubectl.Kubectl, name: str, workdir: str) -> None:
  """Removes what an earlier launch of the run, now over, has left.

  Raises:
    UsageError: the earlier launch is not over.
    CommandError: the cluster refuses to tell, or to remove it.
  """
  state = cluster.job_set_state(name)
  if state is None:
    return
  if state not in _STATES:
    raise cli.UsageError(
      f'{name!r} is on the cluster already, in the namespace '
      f'{cluster.namespace!r}; stop it first: '
      f'python -m bmg stop --workdir={workdir}'
    )
  cluster.delete_job_set(name)
