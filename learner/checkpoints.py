"""Learner checkpoints: atomic, checked on reading, the last and best kept.

Each checkpoint holds the training state as NumPy arrays, so that it can be read
on other devices than it was written on, and a small JSON record: the counters,
a fingerprint of what must not change, and a checksum of the arrays (Orbax
detects a truncated file, but not a flipped bit in a large array).
"""

import dataclasses
import errno
import math
import os
import pathlib
import shutil
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from bmg import errors
from bmg.configs import schema
from bmg.configs.schema import fields, resume

# How Orbax marks a checkpoint that is being written.
_TEMPORARY = '.orbax-checkpoint-tmp'
_LatestN = ocp.checkpoint_managers.LatestN
_AnyPolicy = ocp.checkpoint_managers.AnyPreservationPolicy


class SaveError(OSError):
  """A checkpoint could not be written; those before it are intact."""


class _UnreadableError(Exception):
  """One checkpoint is damaged."""


def fingerprint(config: schema.Config, num_actions: int) -> dict[str, Any]:
  """Returns what a checkpoint and the run that resumes it must agree on."""
  values = fields.flatten(schema.to_dict(config))
  fixed = {
    field: value
    for field, value in values.items()
    if fields.kind(field) is resume.Kind.FIXED
  }
  return fixed | {
    'num_actions': num_actions,
    # All that older checkpoints say about `meta.parameters`.
    'meta.parameters.learned': list(config.meta.parameters.learned),
  }


class CheckpointStore:
  """The checkpoints of one run, written by its learner alone."""

  def __init__(
    self,
    directory: str,
    config: schema.Learner,
    fingerprint: Mapping[str, Any],
  ):
    """Opens `directory` and removes what an interrupted save left there.

    Args:
      directory: absolute path; made when missing.
      config: how many checkpoints to keep.
      fingerprint: see `fingerprint`.
    """
    self._directory = directory
    self._fingerprint = dict(fingerprint)
    self._best = _BestN(config.keep_best)
    os.makedirs(directory, exist_ok=True)
    process = jax.process_index()
    self._options = ocp.CheckpointManagerOptions(
      create=False,
      # Of several hosts only this one is here: Orbax must not wait for others.
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}
      ),
      preservation_policy=_AnyPolicy(
        [_LatestN(config.keep_checkpoints), self._best]
      ),
      # A save takes a fraction of a second, every few minutes: not worth a
      # thread whose errors surface later.
      enable_async_checkpointing=False,
      lightweight_initialize=True,
    )
    self._manager = self._open()

  @property
  def latest(self) -> int | None:
    """Number of updates at the newest checkpoint, if there is one."""
    return self._manager.latest_step()

  def save(
    self, step: int, state: Any, counters: Mapping[str, Any], score: float
  ) -> None:
    """Writes one checkpoint, all or nothing, then drops those out of date.

    Args:
      step: number of updates; nothing happens if that one is saved already.
      state: pytree of NumPy arrays.
      counters: JSON types.
      score: what makes a checkpoint one of the best; NaN if not known yet.

    Raises:
      SaveError: the disk is full, or writing failed in another way. What was
        there before is intact, what was written is removed.
    """
    if step == self.latest:
      return
    # Better than to begin: threads of TensorStore can outlive a failed write.
    if _num_bytes(state) > shutil.disk_usage(self._directory).free:
      error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      raise SaveError(self._explain(step, state, error))
    self._best.scores[step] = score
    record = {
      'fingerprint': self._fingerprint,
      'checksum': _checksum(state),
      'score': None if math.isnan(score) else score,
      'counters': dict(counters),
    }
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
    )
    # Orbax and TensorStore report a failed write as ValueError, OSError and
    # more, depending on which file it met.
    try:
      self._manager.save(step, args=args, force=True)
    except Exception as error:
      self._reopen()
      raise SaveError(self._explain(step, state, error)) from error

  def restore(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
    """Reads the newest checkpoint that is whole.

    Damaged ones that are newer are renamed to `<step>.unreadable`.

    Args:
      template: a state of the same structure, shapes and dtypes.

    Returns:
      (state as NumPy, counters), or None if there is no checkpoint.

    Raises:
      FatalError: the run is another one than the checkpoint's, or there are
        checkpoints but none can be read.
    """
    template = jax.tree.map(np.asarray, jax.device_get(template))
    damaged = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        record = _read_record(self._manager, step)
        self._check_fingerprint(step, record['fingerprint'])
        state = _read_state(self._manager, step, record, template)
      except _UnreadableError as error:
        logging.warning('Checkpoint %s cannot be read: %s', step, error)
        damaged.append(step)
        continue
      self._set_aside(damaged)
      logging.info('Restored checkpoint %s from %s.', step, self._directory)
      return state, record['counters']
    if damaged:
      raise errors.FatalError(
        f'none of the checkpoints in {self._directory} can be read: '
        f'{", ".join(map(str, damaged))}. Move them away to start afresh, or '
        'put a whole copy in their place.'
      )
    return None

  def close(self) -> None:
    self._manager.close()

  def _open(self) -> ocp.CheckpointManager:
    # Orbax offers to do this too, but in the background: a full disk would not
    # have its room back before the next save.
    for path in pathlib.Path(self._directory).glob(f'*{_TEMPORARY}*'):
      shutil.rmtree(path, ignore_errors=True)
    manager = ocp.CheckpointManager(self._directory, options=self._options)
    for step in manager.all_steps():
      if step not in self._best.scores:
        self._best.scores[step] = _read_score(manager, step)
    return manager

  def _reopen(self) -> None:
    """Forgets a save that failed, and removes what it has written."""
    self._manager.close()
    self._manager = self._open()

  def _set_aside(self, steps: Sequence[int]) -> None:
    # They must not count as the newest ones: they would keep good ones from
    # being saved, and push them out.
    for step in steps:
      path = os.path.join(self._directory, str(step))
      shutil.rmtree(f'{path}.unreadable', ignore_errors=True)
      os.rename(path, f'{path}.unreadable')
      logging.warning('Renamed it to %s.unreadable.', path)
    if steps:
      self._reopen()

  def _check_fingerprint(self, step: int, saved: Mapping[str, Any]) -> None:
    for field, value in self._fingerprint.items():
      # An older revision may not have had the field, or not have saved it.
      if saved.get(field, value) != value:
        raise errors.FatalError(
          f'config.{field} = {value!r}: checkpoint {step} in '
          f'{self._directory} was made with {saved[field]!r}; resume with '
          'that, or choose another workdir'
        )

  def _explain(self, step: int, state: Any, error: Exception) -> str:
    if _is_disk_full(error):
      reason = os.strerror(errno.ENOSPC)
    else:
      reason = f'{type(error).__name__}: {error}'
    size = _num_bytes(state) / 1e6
    free = shutil.disk_usage(self._directory).free / 1e6
    return (
      f'cannot save checkpoint {step} of {size:.1f} MB in {self._directory} '
      f'({free:.1f} MB free): {reason}'
    )


def _num_bytes(state: Any) -> int:
  return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def load_params(
  directory: str, best: bool = False
) -> tuple[Any, dict[str, Any]]:
  """Reads parameters for evaluation; a running learner is not disturbed.

  Args:
    directory: the `checkpoints` folder of a run.
    best: take the checkpoint with the highest mean episode return, not the
      newest.

  Returns:
    (parameters as NumPy, counters) of the first such checkpoint that is whole.

  Raises:
    FatalError: there is none.
  """
  with _open_read_only(directory) as manager:
    steps = sorted(manager.all_steps(), reverse=True)
    if not steps:
      raise errors.FatalError(f'there is no checkpoint in {directory} yet')
    if best:
      steps.sort(key=lambda step: -_rank(_read_score(manager, step)))
    for step in steps:
      try:
        record = _read_record(manager, step)
        state = _read_state(manager, step, record, template=None)
      except _UnreadableError as error:
        logging.warning('Checkpoint %s cannot be read: %s', step, error)
        continue
      return state['params'], record['counters']
  raise errors.FatalError(f'no checkpoint in {directory} can be read')


def saved_updates(directory: str) -> list[int]:
  """Returns the numbers of updates that there are checkpoints of, ascending.

  Raises:
    FatalError: there is no such folder.
  """
  with _open_read_only(directory) as manager:
    return sorted(manager.all_steps())


def load_state(
  directory: str, step: int, template: Any
) -> tuple[Any, dict[str, Any]]:
  """Reads the state of one checkpoint, and its counters, as `restore` does.

  A running learner is not disturbed.

  Raises:
    FatalError: there is no such checkpoint, or it is damaged.
  """
  with _open_read_only(directory) as manager:
    try:
      record = _read_record(manager, step)
      return _read_state(manager, step, record, template), record['counters']
    except _UnreadableError as error:
      raise errors.FatalError(
        f'checkpoint {step} in {directory} cannot be read: {error}'
      ) from error


def _open_read_only(directory: str) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(
    read_only=True, create=False, lightweight_initialize=True
  )
  if not os.path.isdir(directory):
    raise errors.FatalError(f'there is no checkpoint folder {directory}')
  # Orbax reads nothing by a relative path.
  return ocp.CheckpointManager(os.path.abspath(directory), options=options)


@dataclasses.dataclass
class _BestN:
  """Orbax preservation policy: the `n` checkpoints with the highest scores."""

  n: int
  scores: dict[int, float] = dataclasses.field(default_factory=dict)

  def should_preserve(
    self,
    checkpoints: Sequence[Any],
    *,
    context: ocp.checkpoint_managers.PreservationContext,
  ) -> list[bool]:
    del context
    ranking = sorted(
      (info.step for info in checkpoints),
      key=lambda step: _rank(self.scores[step]),
      reverse=True,
    )
    best = ranking[: self.n]
    return [info.step in best for info in checkpoints]


def _rank(score: float) -> float:
  return -math.inf if math.isnan(score) else score


def _read_record(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  args = ocp.args.Composite(record=ocp.args.JsonRestore())
  # A damaged file can surface as almost any exception.
  try:
    return manager.restore(step, args=args)['record']
  except Exception as error:
    raise _UnreadableError(f'{type(error).__name__}: {error}') from error


def _read_score(manager: ocp.CheckpointManager, step: int) -> float:
  try:
    score = _read_record(manager, step)['score']
  except _UnreadableError:
    return math.nan
  return math.nan if score is None else score


def _read_state(
  manager: ocp.CheckpointManager,
  step: int,
  record: Mapping[str, Any],
  template: Any,
) -> Any:
  args = ocp.args.Composite(state=ocp.args.StandardRestore(template))
  try:
    state = manager.restore(step, args=args)['state']
  except Exception as error:
    raise _UnreadableError(f'{type(error).__name__}: {error}') from error
  if _checksum(state) != record['checksum']:
    raise _UnreadableError('its arrays do not match their checksum')
  return state


def _checksum(state: Any) -> int:
  """Order-independent of how a tree is nested: paths do not enter."""
  checksums = [zlib.crc32(leaf.tobytes()) for leaf in jax.tree.leaves(state)]
  return zlib.crc32(repr(sorted(checksums)).encode())


def _is_disk_full(error: BaseException | None) -> bool:
  while error is not None:
    if getattr(error, 'errno', None) == errno.ENOSPC:
      return True
    if os.strerror(errno.ENOSPC) in str(error):
      return True
    error = error.__cause__ or error.__context__
  return False
