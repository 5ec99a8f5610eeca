"""Puts a run on Kubernetes: writes its manifests, has kubectl apply them.

docs/kubernetes.md describes it for users.
"""

import os
import pathlib
import shlex
from collections.abc import Callable, Sequence

import yaml

from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.kubernetes import dns, kubectl, manifests
from bmg.launch.run import files, subprocesses


def launch(
  config: schema.Config,
  workdir: str,
  dry_run: bool,
  say: Callable[[str], None],
) -> int:
  """Writes a run's manifests into its folder and applies them.

  Args:
    config: of the run.
    workdir: the run's folder on this machine; its name is the run's.
    dry_run: only says what would be applied, and writes nothing.
    say: prints.

  Returns:
    The exit status: 0 where the run is on the cluster; 1 where the cluster
    refuses it, or there is none at hand and the user was told what to do.

  Raises:
    ConfigError: a field does not do for Kubernetes.
    UsageError: the run is on the cluster already, or the folder cannot be
      written to.
  """
  name = dns.run_name(workdir)
  folder = pathlib.Path(os.path.abspath(workdir), 'kubernetes')
  documents = manifests.make(config, name, _run_token(folder))
  if dry_run:
    say(manifests.to_yaml(documents))
    return 0
  cluster = kubectl.Kubectl(config.kubernetes.namespace)
  problem = cluster.find_problem()
  try:
    if problem is None:
      _clear_the_way(cluster, name)
    _write(folder, documents)
    say(f'Wrote the manifests of {name!r} into {folder}')
    if problem is not None:
      command = shlex.join(kubectl.apply_command(folder))
      say(f'Not applied: {problem}. To start the run: {command}')
      return 1
    # The whole is checked by the server before any of it is there.
    cluster.apply(folder, dry_run=True)
    cluster.apply(folder)
  except subprocesses.CommandError as error:
    say(f'error: {error}')
    return 1
  _say_applied(config, name, say)
  return 0


def _say_applied(
  config: schema.Config, name: str, say: Callable[[str], None]
) -> None:
  kubernetes = config.kubernetes
  command = f'kubectl --namespace={kubernetes.namespace}'
  say(
    f'Applied {name!r}. Its folder is {manifests.workdir(config, name)} on the '
    f'claim {kubernetes.storage_claim!r}.\n'
    f'  watch it: {command} get pods --selector={manifests.INSTANCE}={name}\n'
    f'  stop it:  {command} delete jobset {name}'
  )


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


def _clear_the_way(cluster: kubectl.Kubectl, name: str) -> None:
  """Removes what an earlier launch of the run, now over, has left.

  Raises:
    UsageError: the earlier launch is not over.
    CommandError: the cluster refuses to tell, or to remove it.
  """
  state = cluster.job_set_state(name)
  if state is None:
    return
  if state not in kubectl.FINAL_STATES:
    raise cli.UsageError(
      f'{name!r} is on the cluster already, in the namespace '
      f'{cluster.namespace!r}; stop it first: '
      f'kubectl --namespace={cluster.namespace} delete jobset {name}'
    )
  cluster.delete_job_set(name)
