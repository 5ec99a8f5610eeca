"""Meta-training of one learner: seed by seed, stopped and resumed at will.

Whatever a seed has made is in its checkpoint, its evaluations included, so that
a resumed run has no gap and no repeat. Its clock counts meta-training alone:
neither compilation nor evaluation.
"""

import functools
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from bmg import engine, errors
from bmg.configs import schema as atari_schema
from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import learners, networks
from bmg.experiments.few_shot import tasks as tasks_lib
from bmg.learner import checkpoints

PyTree = Any
# Evaluations by column, float64 [num_evaluations]; NaN where still to come.
Records = dict[str, np.ndarray]
COLUMNS = ('meta_step', 'seconds', 'train_loss', 'validation', 'test')

_PROGRESS_PERIOD_S = 10.0
_KEPT = atari_schema.Learner(keep_checkpoints=2, keep_best=0)
# What random keys are made for.
_PARAMETERS, _TRAINING, _EVALUATION = range(3)


class DivergedError(errors.FatalError):
  """The loss of one learner is not finite; the others may still do well."""


class State(NamedTuple):
  """What a meta-step moves."""

  meta: engine.MetaState
  # int32: meta-steps made.
  step: jax.Array
  # float32: sum, since the last evaluation, of the query loss at x^(K).
  loss_sum: jax.Array


class Snapshot(NamedTuple):
  """A checkpoint: all of a seed."""

  state: State
  records: Records
  # float64 []: of meta-training.
  seconds: np.ndarray


class Progress(NamedTuple):
  """Where a seed is; made of a `Snapshot`, and turned into one again."""

  state: State
  records: Records
  seconds: float


def seed_folder(workdir: str, name: str, seed: int) -> pathlib.Path:
  """The folder of one seed of the learner `name`."""
  return pathlib.Path(workdir, name, f'seed_{seed}')


def seeds(study: schema.Study) -> range:
  """The seeds of every learner."""
  return range(study.seed, study.seed + study.num_seeds)


def metric_name(study: schema.Study) -> str:
  """What `validation` and `test` are."""
  return 'MSE' if study.data.kind == 'sinusoid' else 'accuracy'


def make_objective(
  study: schema.Study, learner: schema.Learner
) -> networks.Objective:
  """Returns what the tasks of the study ask for."""
  if study.data.kind == 'sinusoid':
    return networks.regression(learner.matching_sigma)
  return networks.classification()


class Trainer:
  """Meta-trains the seeds of one learner, and compiles once for all of them."""

  def __init__(
    self,
    study: schema.Study,
    name: str,
    source: tasks_lib.Source,
    workdir: str,
    fingerprint: Mapping[str, Any],
  ):
    """Prepares; nothing is compiled before a seed needs it.

    Args:
      study: the configuration.
      name: of the learner.
      source: of tasks.
      workdir: of the study.
      fingerprint: what a checkpoint and the run that resumes it agree on.
    """
    self._study = study
    self._name = name
    self._source = source
    self._workdir = workdir
    self._fingerprint = fingerprint
    self._config = study.learners[name]
    self._network = networks.make_network(
      study.network, source.input_shape, source.num_outputs
    )
    self._learner = learners.make_learner(
      self._config, self._network, make_objective(study, self._config)
    )

  def run(self, seed: int, stop: threading.Event) -> bool:
    """Meta-trains one seed, from its checkpoint if there is one.

    Args:
      seed: random seed.
      stop: once set, the seed is saved where it is.

    Returns:
      Whether the seed has finished.

    Raises:
      DivergedError: the loss is not finite.
      FatalError: no checkpoint can be read.
      SaveError: a checkpoint cannot be written.
    """
    folder = seed_folder(self._workdir, self._name, seed).absolute()
    (folder / 'checkpoints').mkdir(parents=True, exist_ok=True)
    store = checkpoints.CheckpointStore(
      str(folder / 'checkpoints'), _KEPT, self._fingerprint
    )
    try:
      initial = _pack(self._begin(seed))
      restored = store.restore(initial)
      progress = _unpack(restored[0] if restored else initial)
      save = lambda progress: _save(store, folder, progress)
      return self._advance(seed, progress, save, stop)
    finally:
      store.close()

  def _advance(
    self,
    seed: int,
    progress: Progress,
    save: Callable[[Progress], None],
    stop: threading.Event,
  ) -> bool:
    """Goes from evaluation to evaluation, and saves after some of them."""
    study = self._study
    last_save = time.monotonic()
    while not stop.is_set():
      step = int(progress.state.step)
      if _is_due(study, step, progress.records):
        progress = self._evaluate(progress)
        self._print(seed, progress)
        late = time.monotonic() - last_save >= study.checkpoint_period_s
        if late or step == study.num_meta_steps:
          save(progress)
          last_save = time.monotonic()
      if step == study.num_meta_steps:
        # Anew, should it have been lost.
        write_records(
          seed_folder(self._workdir, self._name, seed), progress.records
        )
        return True
      until = step + study.eval_period - step % study.eval_period
      until = min(until, study.num_meta_steps)
      progress = self._train(seed, progress, until, stop)
    save(progress)
    return False

  def _begin(self, seed: int) -> Progress:
    params = self._network.init(_key(seed, _PARAMETERS))
    state = State(
      self._learner.init(params), jnp.zeros((), jnp.int32), jnp.zeros(())
    )
    count = 1 - (-self._study.num_meta_steps // self._study.eval_period)
    records = {name: np.full(count, np.nan) for name in COLUMNS}
    return Progress(state, records, seconds=0.0)

  def _train(
    self, seed: int, progress: Progress, until: int, stop: threading.Event
  ) -> Progress:
    """Makes meta-steps up to `until`, or up to when it should stop."""
    step_function, key = self._compiled, _key(seed, _TRAINING)
    data = self._source.data['train']
    state, seconds = progress.state, progress.seconds
    first_step = int(state.step)
    start = last_print = time.perf_counter()
    for step in range(first_step, until):
      state = step_function(state, data, key)
      if stop.is_set():
        break
      if time.perf_counter() - last_print >= _PROGRESS_PERIOD_S:
        jax.block_until_ready(state)
        last_print = time.perf_counter()
        speed = (step + 1 - first_step) / (last_print - start)
        self._print(seed, progress._replace(state=state), speed)
    jax.block_until_ready(state)
    seconds += time.perf_counter() - start
    return progress._replace(state=state, seconds=seconds)

  def _evaluate(self, progress: Progress) -> Progress:
    """Adds an evaluation to the records."""
    state, records = progress.state, progress.records
    step = int(state.step)
    row = _row(self._study, step)
    previous = records['meta_step'][row - 1] if row else 0
    loss = float(state.loss_sum) / (step - previous) if row else np.nan
    if row and not np.isfinite(loss):
      raise DivergedError(
        f'{self._name}: the loss is not finite at meta-step {step}; try lower '
        'learning rates, in another workdir'
      )
    values = {
      split: float(
        self._evaluate_split(
          state.meta.params,
          self._source.data[split],
          _key(self._study.seed, _EVALUATION, index),
        )
      )
      for index, split in enumerate(('validation', 'test'))
    }
    values |= {
      'meta_step': step,
      'seconds': progress.seconds,
      'train_loss': loss,
    }
    for column, value in values.items():
      records[column][row] = value
    return progress._replace(
      state=state._replace(loss_sum=jnp.zeros(())), records=records
    )

  @functools.cached_property
  def _compiled(self) -> Callable[[State, PyTree, jax.Array], State]:
    """One meta-step, compiled ahead so that no clock sees it."""

    def step(state: State, data: PyTree, key: jax.Array) -> State:
      keys = jax.random.split(
        jax.random.fold_in(key, state.step), self._config.meta_batch_size
      )
      tasks = jax.vmap(self._source.sample, (0, None))(keys, data)
      output = self._learner.step(state.meta, tasks)
      return State(
        output.meta, state.step + 1, state.loss_sum + output.outer_aux.loss
      )

    arguments = (
      self._begin(0).state,
      self._source.data['train'],
      _key(0, _TRAINING),
    )
    print(f'{self._name}: compiling', flush=True)
    return jax.jit(step).lower(*arguments).compile()

  @functools.cached_property
  def _evaluate_split(self) -> Callable[[PyTree, PyTree, jax.Array], jax.Array]:
    """The function (w, arrays of a split, key) -> mean metric after K steps."""
    count, size = self._study.num_eval_tasks, self._config.meta_batch_size
    num_batches = -(-count // size)

    @jax.jit
    def evaluate(params: PyTree, data: PyTree, key: jax.Array) -> jax.Array:
      def batch(keys: jax.Array) -> jax.Array:
        tasks = jax.vmap(self._source.sample, (0, None))(keys, data)
        return self._learner.evaluate(params, tasks).metric

      # The first keys are the same for all batch sizes.
      keys = jax.vmap(functools.partial(jax.random.fold_in, key))(
        jnp.arange(num_batches * size)
      )
      metrics = jax.lax.map(batch, keys.reshape(num_batches, size))
      return jnp.mean(metrics.reshape(-1)[:count])

    return evaluate

  def _print(
    self, seed: int, progress: Progress, speed: float | None = None
  ) -> None:
    step, total = int(progress.state.step), self._study.num_meta_steps
    if speed is None:
      speed = step / progress.seconds if progress.seconds else None
    line = f'{self._name} seed {seed}: meta-step {step}/{total}'
    if speed:
      line += f', {speed:.1f}/s, {_duration((total - step) / speed)} left'
    row = _row(self._study, step)
    known = progress.records
    if not np.isnan(known['train_loss'][row]):
      line += f', train loss {known["train_loss"][row]:.4f}'
    if not np.isnan(known['validation'][row]):
      line += f', validation {metric_name(self._study)} '
      line += f'{known["validation"][row]:.4f}'
    print(line, flush=True)


def write_records(folder: pathlib.Path, records: Records) -> None:
  """Writes the evaluations so far to `evaluation.csv`, whole or not at all."""
  rows = pd.DataFrame({name: records[name] for name in COLUMNS})
  rows = rows.dropna(subset=['meta_step'])
  rows['meta_step'] = rows['meta_step'].astype(int)
  temporary = folder / '.evaluation.csv'
  rows.to_csv(temporary, index=False)
  temporary.replace(folder / 'evaluation.csv')


def _save(
  store: checkpoints.CheckpointStore, folder: pathlib.Path, progress: Progress
) -> None:
  store.save(int(progress.state.step), _pack(progress), {}, score=np.nan)
  write_records(folder, progress.records)


def _pack(progress: Progress) -> Snapshot:
  return jax.tree.map(
    np.asarray,
    Snapshot(
      jax.device_get(progress.state),
      progress.records,
      np.asarray(progress.seconds),
    ),
  )


def _unpack(snapshot: Snapshot) -> Progress:
  return Progress(
    jax.device_put(snapshot.state),
    # What is read from a checkpoint may be read-only.
    {name: np.array(column) for name, column in snapshot.records.items()},
    float(snapshot.seconds),
  )


def _row(study: schema.Study, step: int) -> int:
  """The row of the evaluation at `step`, or of the last one before."""
  if step == study.num_meta_steps:
    return -(-step // study.eval_period)
  return step // study.eval_period


def _is_due(study: schema.Study, step: int, records: Records) -> bool:
  on_time = step % study.eval_period == 0 or step == study.num_meta_steps
  return on_time and np.isnan(records['meta_step'][_row(study, step)])


def _key(seed: int, *purpose: int) -> jax.Array:
  key = jax.random.key(seed)
  for number in purpose:
    key = jax.random.fold_in(key, number)
  return key


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{seconds:02d}s'
