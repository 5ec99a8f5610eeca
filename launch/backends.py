"""All backends by the name that --launcher gives them, and each run's own."""

import difflib
import pathlib
from collections.abc import Iterable

from bmg.launch import cli
from bmg.launch.kubernetes import launcher as kubernetes
from bmg.launch.local import backend as local
from bmg.launch.run import backend, files
from bmg.launch.slurm import launcher as slurm

BACKENDS: dict[str, backend.Backend] = {
  'local': local.Processes(),
  'threads': local.Threads(),
  'slurm': slurm.Slurm(),
  'kubernetes': kubernetes.Kubernetes(),
}


def get(name: str, names: Iterable[str] = tuple(BACKENDS)) -> backend.Backend:
  """Returns the backend of that name.

  Raises:
    UsageError: it is not one of `names`.
  """
  names = tuple(names)
  if name not in names:
    nearest = difflib.get_close_matches(name, names, n=1)
    raise cli.UsageError(
      f'--launcher={name}: must be one of {", ".join(names)}'
      + (f'. Did you mean {nearest[0]!r}?' if nearest else '')
    )
  return BACKENDS[name]


def of_run(workdir: str) -> backend.Backend:
  """Returns the backend that the run was last submitted to."""
  name = files.read_submission(workdir).backend
  return BACKENDS[name if name in BACKENDS else _infer(workdir)]


def _infer(workdir: str) -> str:
  """Infers the name for a folder that is older than its record of it."""
  if files.jobs(workdir).exists():
    return 'slurm'
  # Pods begin their launches elsewhere.
  if (
    files.launch_number(workdir) == 0
    and pathlib.Path(kubernetes.folder(workdir)).exists()
  ):
    return 'kubernetes'
  return 'local'
