"""Says what a run's meta-gradients are worth, before anything is trained.

Usage: python -m bmg.benchmarks.step.meta_gradients --workdir=runs/pong
         [--updates=5000,20000] [--variants=run,mg-K1,bmg-L4] [--batches=200]
         [--out=meta_gradients.json]

It takes checkpoints of a run, plays with their policies, and computes the
meta-gradients of many batches while the learner stands still, for the run's own
settings and for others. docs/benchmarks.md says how to read the figures.
"""

import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags, logging
from rich.console import Console
from rich.table import Table

from bmg.actors import actor, environment, policy
from bmg.agents import algorithm, optimizers, seeding, types
from bmg.benchmarks.harness import command
from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.run import folder as run_folder
from bmg.launch.run import provenance, topology
from bmg.learner import checkpoints, training

# Unrolls of each game that come before those which count, so that the games
# are no longer at their beginning, nor all at the same point.
_WARM_UP = 40
# Adam's epsilon as in the schema, as Adam's default, and next to none.
EPSILONS = (1e-4, 1e-8, 1e-12)
# Plain updates between the meta-steps of a variant, to compare its time with.
_TIMED = 15

Fields = Mapping[str, Any]


def _mg(updates: int = 1, **fields: Any) -> Fields:
  return {
    'meta.mode': 'mg',
    'meta.inner_updates': updates,
    'meta.updates_between': 0,
    **{f'meta.{name}': value for name, value in fields.items()},
  }


def _bmg(length: int = 1, updates: int = 1, **fields: Any) -> Fields:
  settings = {
    'mode': 'bmg',
    'bootstrap_length': length,
    'target': 'grounded',
    'target_data': 'replay',
    'matching': 'kl_value',
    **fields,
  }
  return _mg(updates, **settings)


# The sum over states is so long that it is always clipped.
_CLIPPED: Fields = {'loss.reduction': 'sum'}
_UNCLIPPED: Fields = {
  'loss.reduction': 'mean',
  'optimizer.max_grad_norm': 1e6,
}
_BASES: Mapping[str, Fields] = {
  **{f'mg-K{updates}': _mg(updates) for updates in (1, 2, 4)},
  'mg-moments': _mg(differentiate_second_moments=False),
  **{f'bmg-L{length}': _bmg(length) for length in (1, 2, 4, 8, 16)},
  **{f'bmg-K{updates}': _bmg(1, updates) for updates in (2, 4)},
  'bmg-batch-L4': _bmg(4, target_data='batch'),
  **{
    f'bmg-online-L{length}': _bmg(length, target_data='online')
    for length in (4, 8, 16)
  },
  'bmg-online-L8-kl': _bmg(8, target_data='online', matching='kl'),
  **{
    f'bmg-{matching}': _bmg(matching=matching)
    for matching in ('kl', 'reverse_kl', 'value', 'l2')
  },
  'bmg-sum': _bmg(matching_reduction='sum'),
  'bmg-moments': _bmg(differentiate_second_moments=False),
  'bmg-value-whole': {**_bmg(), 'loss.half_value_loss': False},
  'bmg-batch-x4': {
    **_bmg(),
    'replay.online_batch': 4,
    'replay.replay_batch': 4,
  },
}
_IN_BOTH_REGIMES = (
  'mg-K1',
  'bmg-L1',
  'bmg-L4',
  'bmg-kl',
  'bmg-online-L8',
  'bmg-online-L8-kl',
)
# Fields in which each differs from the run's configuration.
VARIANTS: Mapping[str, Fields] = {
  'run': {},
  **_BASES,
  **{
    f'{name}-{regime}': {**_BASES[name], **fields}
    for regime, fields in (('clipped', _CLIPPED), ('unclipped', _UNCLIPPED))
    for name in _IN_BOTH_REGIMES
  },
}
# Of these, the value is a multiple of the run's.
_MULTIPLES = ('replay.online_batch', 'replay.replay_batch')


@dataclasses.dataclass(frozen=True)
class Signal:
  """What the meta-gradients of one logit are like."""

  mean: float
  deviation: float
  # Of the meta-optimiser's nominal step, what Adam goes in one direction on
  # average, for each of `EPSILONS`.
  drift: Mapping[str, float]

  @property
  def ratio(self) -> float:
    """Mean over standard deviation, of one meta-gradient; 0 where both are."""
    return self.mean / self.deviation if self.deviation else 0.0


@dataclasses.dataclass(frozen=True)
class Measurement:
  """The meta-gradients of one variant at one checkpoint."""

  variant: str
  num_updates: int
  num_frames: int
  # Median norm, and median cosine of the angle between successive ones.
  norm: float
  cosine: float
  # Of an update of the agent, in plain updates.
  cost: float
  # By name, with `_aux1` and so on for other heads than the main one.
  signals: Mapping[str, Signal]


def configure(config: schema.Config, fields: Fields) -> schema.Config:
  """Returns the configuration of a variant, with room for its batches."""
  values = schema.to_dict(config)
  for path, value in fields.items():
    group, name = path.split('.')
    if path in _MULTIPLES:
      value *= values[group][name]
    values[group][name] = value
  meta, replay = values['meta'], values['replay']
  batches = meta['updates_between'] + meta['inner_updates']
  batches += meta['bootstrap_length']
  replay['online_capacity'] = max(
    replay['online_capacity'], batches * replay['online_batch']
  )
  # All hosts' work is done here.
  values['learner']['num_hosts'] = 1
  return schema.from_config_dict(values)


def play(
  config: schema.Config, params: types.Params, num_turns: int
) -> list[types.Unroll]:
  """Plays with fixed parameters.

  Args:
    config: of the run.
    params: of its policy.
    num_turns: unrolls of each of an actor's games.

  Returns:
    The unrolls in the order in which an actor sends them.
  """
  num_envs = config.actors.envs_per_actor
  seeds = seeding.derive_seeds(config.seed, 'actor', 0, 0, num_envs + 1)
  groups = actor.make_games(config, seeds[:num_envs])
  acting = policy.Policy(config, groups[0].num_actions, int(seeds[num_envs]))
  collector = actor.UnrollCollector(config, groups, acting)
  params = jax.device_put(params)
  unrolls: list[types.Unroll] = []
  for turn in range(_WARM_UP + num_turns):
    fresh = collector.collect(params, 0, 0, 0.0)
    if turn >= _WARM_UP:
      unrolls += fresh
  for games in groups:
    games.close()
  return unrolls


class Batches:
  """Batches of unrolls: fresh ones in their order, others drawn from all.

  A run's replay also holds unrolls of older policies.
  """

  def __init__(
    self, config: schema.Config, unrolls: Sequence[types.Unroll], seed: int
  ):
    self._config = config
    self._fields = types.Unroll(*map(np.stack, zip(*unrolls, strict=True)))
    self._num_unrolls = len(unrolls)
    self._random = np.random.default_rng(seed)
    self._next = 0

  def draw(self) -> training.TrainBatch:
    """Returns what the next training step learns from."""
    meta, replay = self._config.meta, self._config.replay
    shape = (meta.updates_per_step, replay.online_batch)
    online = self._next + np.arange(np.prod(shape, dtype=int)).reshape(shape)
    self._next += online.size
    replayed = self._draw(meta.updates_per_step, replay.replay_batch)
    own = np.concatenate([online % self._num_unrolls, replayed], axis=1)
    bootstrap = self._draw(meta.num_bootstrap_batches, meta.bootstrap_batch)
    return training.TrainBatch(self._take(own), self._take(bootstrap))

  def _draw(self, num_batches: int, size: int) -> np.ndarray:
    return self._random.integers(self._num_unrolls, size=(num_batches, size))

  def _take(self, indices: np.ndarray) -> types.Unroll:
    return types.Unroll(*(field[indices] for field in self._fields))


class Step:
  """The training step of one variant, from a state that stays as it is."""

  def __init__(self, config: schema.Config, num_actions: int):
    """Compiles nothing yet."""
    self.config = config
    self._step = training.TrainStep(config, num_actions, jax.devices()[:1])
    self.state = jax.device_get(self._step.init(config.seed))

  def run(
    self, saved: algorithm.TrainingState, batch: training.TrainBatch
  ) -> tuple[np.ndarray, float]:
    """Makes one meta-step from a checkpoint.

    Returns:
      The meta-gradient, float [number of logits], by name and head; and the
      seconds that an update of the agent took.
    """
    # The variant's own optimisers start anew; what they look at does not.
    state = self.state._replace(
      params=saved.params,
      opt_state=saved.opt_state,
      meta=self.state.meta._replace(params=saved.meta.params),
      num_updates=saved.num_updates,
    )
    placed = self._step.place(state), self._step.put(batch)
    jax.block_until_ready(placed)
    start = time.perf_counter()
    state, _ = jax.block_until_ready(self._step.step(*placed))
    seconds = time.perf_counter() - start
    gradient = jax.device_get(state.meta_gradient)
    flat = np.concatenate([gradient[name] for name in sorted(gradient)])
    return flat, seconds / self.config.meta.updates_per_step


def logit_names(config: schema.Config) -> list[str]:
  """Names the entries of a meta-gradient as `Step.run` returns it."""
  return [
    f'{name}_aux{head}' if head else name
    for name in sorted(config.meta.parameters.learned)
    for head in range(config.agent.num_heads)
  ]


def signals(config: schema.Config, gradients: np.ndarray) -> dict[str, Signal]:
  """Sums up meta-gradients, float [N, number of logits]."""
  drifts = {
    str(epsilon): drift(config, gradients, epsilon) for epsilon in EPSILONS
  }
  return {
    name: Signal(
      mean=float(gradients[:, index].mean()),
      deviation=float(gradients[:, index].std()),
      drift={epsilon: float(each[index]) for epsilon, each in drifts.items()},
    )
    for index, name in enumerate(logit_names(config))
  }


def drift(
  config: schema.Config, gradients: np.ndarray, epsilon: float
) -> np.ndarray:
  """Returns the mean step of the meta-optimiser in nominal steps, by logit.

  Args:
    config: its settings, but for its learning rate and epsilon.
    gradients: one after the other, float [N, number of logits].
    epsilon: Adam's.
  """
  meta = dataclasses.replace(config.meta, epsilon=epsilon)
  optimizer = optimizers.make_meta_optimizer(meta, learning_rate=1.0)

  def step(
    state: optax.OptState, gradient: jax.Array
  ) -> tuple[optax.OptState, optax.Updates]:
    update, state = optimizer.update(gradient, state)
    return state, update

  _, updates = jax.lax.scan(
    step, optimizer.init(gradients[0]), jnp.asarray(gradients)
  )
  return np.mean(updates, axis=0)


def cosines(gradients: np.ndarray) -> np.ndarray:
  """Cosines of the angles between successive rows, float [N - 1]."""
  norms = np.linalg.norm(gradients, axis=1)
  products = np.sum(gradients[1:] * gradients[:-1], axis=1)
  return products / np.maximum(norms[1:] * norms[:-1], 1e-38)


def main(argv: Sequence[str]) -> int:
  """Measures, prints and saves.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: a checkpoint cannot be read.
  """
  flag_values = _define_flags()
  cli.parse(flag_values, argv)
  workdir = command.value(flag_values, 'workdir')
  config = run_folder.read_config(workdir)
  names = command.choose(
    'variants', command.value(flag_values, 'variants'), VARIANTS, 'variant'
  )
  num_batches: int = command.value(flag_values, 'batches')
  folder = str(pathlib.Path(workdir, 'checkpoints').absolute())
  ages = choose_ages(
    checkpoints.saved_updates(folder),
    command.whole_numbers(flag_values, 'updates'),
  )
  output = pathlib.Path(command.value(flag_values, 'out'))
  command.clean_up_on_sigterm()
  command.take_environment(
    topology.LEARNER, config, 'bmg.benchmarks.step.meta_gradients', argv
  )
  # Orbax warns that what is to be read only is read only.
  logging.set_verbosity(logging.ERROR)
  console = Console(soft_wrap=not sys.stdout.isatty())
  saved = {**provenance.describe(argv), 'config': schema.to_dict(config)}
  # Better now than after all the measuring.
  command.save(output, saved)
  measurements: list[Measurement] = []
  for measurement in measure(config, folder, ages, names, num_batches):
    measurements.append(measurement)
    saved['measurements'] = [dataclasses.asdict(each) for each in measurements]
    command.save(output, saved)
    console.print(
      f'{measurement.variant} at update {measurement.num_updates} measured'
    )
  for age in ages:
    found = [each for each in measurements if each.num_updates == age]
    for table in (signal_table(found), drift_table(found)):
      console.print()
      console.print(table)
  console.print(f'\nSaved in {output}')
  return 0


def choose_ages(saved: Sequence[int], wanted: Sequence[int]) -> list[int]:
  """Returns the checkpoints to look at: an early, a middle and a late one.

  Args:
    saved: updates of the checkpoints that there are, ascending.
    wanted: those to look at instead; may be empty.

  Raises:
    UsageError: there is no checkpoint, or not the one that is wanted.
  """
  if not saved:
    raise cli.UsageError('--workdir: the run has no checkpoint yet')
  for update in wanted:
    if update not in saved:
      raise cli.UsageError(
        f'--updates: there is no checkpoint of update {update}; there are: '
        f'{", ".join(map(str, saved))}'
      )
  if wanted:
    return list(wanted)
  return sorted({saved[0], saved[len(saved) // 2], saved[-1]})


def measure(
  config: schema.Config,
  folder: str,
  ages: Sequence[int],
  variants: Sequence[str],
  num_batches: int,
) -> Iterator[Measurement]:
  """Yields the measurements of all variants at each checkpoint.

  Args:
    config: of the run.
    folder: of its checkpoints.
    ages: the checkpoints, by the agent's updates so far.
    variants: names in `VARIANTS`.
    num_batches: meta-gradients of each variant.

  Raises:
    FatalError: a checkpoint cannot be read.
  """
  num_actions = environment.num_actions(config.env)
  plain = Step(configure(config, {'meta.mode': 'none'}), num_actions)
  steps = {
    name: Step(configure(config, VARIANTS[name]), num_actions)
    for name in variants
  }
  # Enough for the run's own batches to be of other unrolls each.
  needed = num_batches * config.replay.online_batch
  num_turns = -(-needed // config.actors.envs_per_actor)
  for age in ages:
    saved, counters = checkpoints.load_state(folder, age, plain.state)
    unrolls = play(config, saved.params, num_turns)
    plain_batches = Batches(plain.config, unrolls, config.seed)
    # Compiles it.
    plain.run(saved, plain_batches.draw())
    for name, step in steps.items():
      batches = Batches(step.config, unrolls, config.seed)
      step.run(saved, batches.draw())
      gradients, costs = [], []
      for index in range(num_batches):
        gradient, seconds = step.run(saved, batches.draw())
        gradients.append(gradient)
        if index < _TIMED:
          # Just after it, so that both find the machine in the same state.
          _, plain_seconds = plain.run(saved, plain_batches.draw())
          costs.append(seconds / plain_seconds)
      yield Measurement(
        variant=name,
        num_updates=age,
        num_frames=counters['num_frames'],
        norm=float(np.median(np.linalg.norm(gradients, axis=1))),
        cosine=float(np.median(cosines(np.stack(gradients)))),
        cost=statistics.median(costs),
        signals=signals(step.config, np.stack(gradients)),
      )


def signal_table(measurements: Sequence[Measurement]) -> Table:
  """Mean over standard deviation of the main head's logits, by variant."""
  names = _main_head(measurements[0])
  table = Table(
    'variant',
    *('cost', 'norm', 'cosine', *names),
    box=None,
    title=(
      f'Update {measurements[0].num_updates} '
      f'({measurements[0].num_frames} frames): mean of a meta-gradient in its '
      'standard deviations'
    ),
  )
  for each in measurements:
    table.add_row(
      each.variant,
      f'{each.cost:.2f}',
      f'{each.norm:.1e}',
      f'{each.cosine:+.2f}',
      *(f'{each.signals[name].ratio:+.2f}' for name in names),
    )
  return table


def drift_table(measurements: Sequence[Measurement]) -> Table:
  """What Adam makes of it, in per cent of its nominal step, by epsilon."""
  names = _main_head(measurements[0])
  table = Table(
    'variant',
    *names,
    box=None,
    title=(
      'Mean step of Adam in % of its nominal step, with an epsilon of '
      + ' | '.join(f'{epsilon:g}' for epsilon in EPSILONS)
    ),
  )
  for each in measurements:
    table.add_row(
      each.variant,
      *(
        ' | '.join(f'{100 * x:+.0f}' for x in each.signals[name].drift.values())
        for name in names
      ),
    )
  return table


def _main_head(measurement: Measurement) -> list[str]:
  return [name for name in measurement.signals if '_aux' not in name]


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'workdir', None, 'Folder of the run.', flag_values=flag_values
  )
  flags.DEFINE_list(
    'updates',
    [],
    'Checkpoints to look at, by their number of updates. Default: the oldest, '
    'one in the middle and the newest.',
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    'variants', list(VARIANTS), 'What to measure.', flag_values=flag_values
  )
  flags.DEFINE_integer(
    'batches',
    200,
    'Meta-gradients of each variant at each checkpoint.',
    lower_bound=2,
    flag_values=flag_values,
  )
  command.define_out(flag_values, 'meta_gradients.json')
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
