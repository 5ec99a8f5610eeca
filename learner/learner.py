"""The learner process: reads batches, steps, publishes, records, saves.

On several hosts (`learner.num_hosts`) each has such a process. All of them make
the same steps, as they agree on each before it; the chief alone writes files.
"""

import json
import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from bmg import errors
from bmg.agents import algorithm, types
from bmg.agents import metrics as metrics_lib
from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.evaluation import records
from bmg.learner import (
  checkpoints,
  heartbeats,
  hosts,
  prefetch,
  publisher,
  training,
)
from bmg.learner import progress as progress_lib

_POLL_S = 0.5


class Learner:
  """One object per learner process; resumes what its workdir holds."""

  def __init__(
    self,
    config: schema.Config,
    workdir: str,
    reader: prefetch.UnrollReader,
    num_actions: int,
    team: hosts.Hosts | None = None,
  ):
    """Initialises the training state, or restores it.

    Args:
      config: the run's configuration.
      workdir: the run's folder; only the chief needs it.
      reader: source of this host's unrolls; closed at the end of `run`.
      num_actions: A, of the game.
      team: from `hosts.join`; not needed for one host.

    Raises:
      ConfigError: there are fewer devices than asked for, or other hosts.
      FatalError: the checkpoints cannot be read, or are of another run.
      LostHostError: another host has died.
    """
    logging.info('Initialising the training state.')
    self._config = config
    self._reader = reader
    self._hosts = team or hosts.Hosts()
    checks.check(
      self._hosts.count == config.learner.num_hosts,
      'learner.num_hosts',
      config.learner.num_hosts,
      f'{self._hosts.count} of them came together',
    )
    self._finished_file = pathlib.Path(workdir, 'state', 'finished.json')
    self._train_step = training.TrainStep(config, num_actions, _devices(config))
    self._state = self._train_step.init(config.seed)
    # The chief's alone, as are the records.
    self._store: checkpoints.CheckpointStore | None = None
    if self._hosts.is_chief:
      self._store = checkpoints.CheckpointStore(
        os.path.abspath(os.path.join(workdir, 'checkpoints')),
        config.learner,
        checkpoints.fingerprint(config, num_actions),
      )
    self._progress = progress_lib.Progress(config, self._restore())
    self._records: records.RunRecords | None = None
    if self._hosts.is_chief:
      self._records = records.RunRecords(
        workdir, 'learner', resume_at=self._progress.num_frames
      )
    self._recorded = self._progress.num_frames
    # Of the last step; on the device, perhaps still in the making.
    self._metrics: metrics_lib.Metrics = {}
    self._publisher = publisher.ParameterPublisher()
    self._publish()

  def _restore(self) -> dict[str, Any] | None:
    """Gives all hosts the chief's newest checkpoint, or its initial state.

    Returns:
      The checkpoint's counters, or None if there is none.
    """
    state, counters = self._state, None
    restored = self._store and self._store.restore(state)
    if restored:
      state, counters = restored
    # Also waits for the chief: a collective would, but not for long.
    words = self._hosts.exchange(json.dumps(counters), lambda: None)
    self._state = self._train_step.place(self._hosts.broadcast(state))
    return json.loads(words[0])

  def get_parameters(
    self, unless_version: int
  ) -> tuple[int, int, types.Params] | None:
    """Serves (version, num_frames, params as NumPy) to actors and evaluator.

    Called by server threads. None if the newest version is `unless_version`.
    """
    published = self._publisher.get(unless_version)
    # A plain tuple: actors need not know the class to unpack it.
    return None if published is None else tuple(published)

  def newest_parameters(self) -> publisher.Published:
    """Returns the newest parameters, on the device; safe in any thread."""
    return self._publisher.newest()

  def run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
    """Trains until `config.num_frames` or `stop`, saves, waits for `stop`.

    Args:
      stop: set to end the run.
      heartbeat: called all along; from more than one thread.

    Raises:
      FatalError: a loss or gradient is not finite, or the last checkpoint (or
        replay) could not be saved. The last good one is intact.
      LostHostError: another host has died, or it alone was stopped.
    """
    try:
      with self._hosts.explain_errors():
        self._run(self._hosts.any_stop(stop), heartbeat)
      self._hosts.leave(stop, heartbeat)
    finally:
      if self._records is not None:
        self._records.close()
      if self._store is not None:
        self._store.close()
      self._reader.close()

  def _run(self, stop: threading.Event, heartbeat: Callable[[], None]) -> None:
    is_chief = self._hosts.is_chief
    if is_chief and not self._progress.finished:
      self._finished_file.unlink(missing_ok=True)
    self._train(stop, heartbeat)
    self._save_last()
    self._record()
    if is_chief and self._progress.finished:
      self._mark_finished()
    while not stop.wait(_POLL_S):
      heartbeat()
    if is_chief and self._config.replay.checkpoint:
      self._save_replay()

  def _train(
    self, stop: threading.Event, heartbeat: Callable[[], None]
  ) -> None:
    config = self._config.learner
    log_timer = progress_lib.PeriodicTimer(config.log_period_s)
    save_timer = progress_lib.PeriodicTimer(config.checkpoint_period_s)
    feed = prefetch.Prefetcher(
      self._reader, self._config, self._train_step.put, heartbeat
    )
    try:
      if not self._progress.finished and not self._compile(stop, heartbeat):
        return
      self._progress.start_session()
      while not self._progress.finished:
        item, waited_s = self._next_batch(feed, stop, heartbeat)
        if item is None:
          break
        self._update(item.batch)
        self._progress.add_step(item.statistics, waited_s)
        self._publish()
        if log_timer.due():
          self._record()
        if save_timer.due():
          self._save_or_warn()
        heartbeat()
    finally:
      feed.close()
    self._check_finite()

  def _next_batch(
    self,
    feed: prefetch.Prefetcher,
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> tuple[prefetch.Prefetched | None, float]:
    """Returns the next batch, and for how long the devices had no work.

    The batch is None if this host, or any other one, is to stop.
    """
    if feed.empty:
      # The devices are still busy with the last step: that is no waiting.
      jax.block_until_ready(self._metrics)
    start = time.monotonic()
    try:
      item = feed.get(stop)
    except Exception:
      # The fault lies with the data; what was learned before is sound.
      self._save_or_warn()
      raise
    if self._hosts.count > 1:
      item = self._agree(item, heartbeat)
    return item, time.monotonic() - start

  def _agree(
    self, item: prefetch.Prefetched | None, heartbeat: Callable[[], None]
  ) -> prefetch.Prefetched | None:
    """Returns the batch, and what there is to report of those of all hosts.

    None if any of them has no batch: no host makes this step.
    """
    word = '' if item is None else progress_lib.pack(item.statistics)
    words = self._hosts.exchange(word, heartbeat)
    if item is None or not all(words):
      return None
    return item._replace(statistics=progress_lib.unpack(words))

  def _compile(
    self, stop: threading.Event, heartbeat: Callable[[], None]
  ) -> bool:
    """Compiles the training step, while actors make the first batch.

    Returns:
      False if this host, or any other one, is to stop instead.
    """
    logging.info('Compiling the training step.')
    start = time.monotonic()

    def compile_step() -> None:
      self._train_step.compile(self._state)

    limit_s = self._config.learner.compile_timeout_s
    done = heartbeats.call(compile_step, stop, heartbeat, limit_s)
    # A first collective waits for the others half a minute at most: too short
    # for their compilers.
    words = self._hosts.exchange('compiled' if done else '', heartbeat)
    if not all(words):
      logging.info('Stopped before the training step was compiled.')
      return False
    logging.info('Compiled it in %.0f s.', time.monotonic() - start)
    return True

  def _update(self, batch: training.DeviceBatch) -> None:
    self._state, metrics = self._train_step.step(self._state, batch)
    # Looks at the step before while this one runs, so that the devices never
    # wait for the host, and the host is never more than a step ahead.
    self._check_finite()
    self._metrics = metrics

  def _check_finite(self) -> None:
    if not self._metrics or bool(self._metrics['finite']):
      return
    prefix = 'finite/'
    terms = [
      name.removeprefix(prefix)
      for name, is_finite in jax.device_get(self._metrics).items()
      if name.startswith(prefix) and not is_finite
    ]
    raise errors.FatalError(
      f'{", ".join(terms)} not finite at update {self._progress.num_updates} '
      f'({self._progress.num_frames} frames). {self._last_good()}'
    )

  def _last_good(self) -> str:
    if self._store is None:
      return 'Host 0 says which checkpoint is the last good one.'
    if self._store.latest is None:
      return 'There is no checkpoint yet.'
    return f'The last good checkpoint is that of update {self._store.latest}.'

  def _publish(self) -> None:
    self._publisher.publish(
      publisher.Published(
        self._progress.num_updates,
        self._progress.num_frames,
        self._state.params,
      )
    )

  def _record(self) -> None:
    """Writes one row, unless nothing happened since the last one."""
    if self._records is None or self._progress.num_frames == self._recorded:
      return
    self._check_finite()
    metrics = {
      name: float(value)
      for name, value in jax.device_get(self._metrics).items()
      if not name.startswith('finite')
    }
    self._records.write(self._progress.row(self._reader.sizes()) | metrics)
    self._recorded = self._progress.num_frames

  def _save(self) -> None:
    if self._store is None or self._progress.num_updates == 0:
      return
    self._check_finite()
    # Copies: the next step reuses the memory of what is on the device.
    state = jax.tree.map(np.array, jax.device_get(self._state))
    _check_state_finite(state, self._progress.num_updates)
    self._store.save(
      self._progress.num_updates,
      state,
      self._progress.to_dict(),
      self._progress.mean_return,
    )

  def _save_or_warn(self) -> None:
    try:
      self._save()
    except checkpoints.SaveError as error:
      logging.error('%s. Training goes on; trying again later.', error)

  def _save_last(self) -> None:
    try:
      self._save()
    except checkpoints.SaveError as error:
      raise errors.FatalError(f'{error}. {self._last_good()}') from error

  def _save_replay(self) -> None:
    try:
      paths = self._reader.checkpoint(self._config.launch.grace_s)
    except (TimeoutError, RuntimeError) as error:
      raise errors.FatalError(
        f'the learner is saved, but replay is not: {error}'
      ) from error
    logging.info('Saved replay to %s.', ', '.join(paths))

  def _mark_finished(self) -> None:
    logging.info('Finished at %s frames.', self._progress.num_frames)
    self._finished_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = self._finished_file.with_suffix('.tmp')
    temporary.write_text(
      json.dumps(
        {
          'num_frames': self._progress.num_frames,
          'num_updates': self._progress.num_updates,
        }
      )
    )
    os.replace(temporary, self._finished_file)


def _devices(config: schema.Config) -> list[jax.Device]:
  """Returns the devices of all hosts, host by host."""
  available = [
    jax.local_devices(process_index=host) for host in range(jax.process_count())
  ]
  numbers = [len(devices) for devices in available]
  wanted = config.learner.num_devices or max(numbers)
  checks.check(
    wanted <= min(numbers),
    'learner.num_devices',
    config.learner.num_devices,
    f'a machine of the learner has {min(numbers)} (0 takes all of them, as '
    'many on each host)',
  )
  return [device for devices in available for device in devices[:wanted]]


def _check_state_finite(
  state: algorithm.TrainingState, num_updates: int
) -> None:
  """A finite loss and gradient can still overflow in the update."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
      raise errors.FatalError(
        f'state{jax.tree_util.keystr(path)} is not finite after update '
        f'{num_updates}; it was not saved.'
      )
