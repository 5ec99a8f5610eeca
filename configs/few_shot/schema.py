"""The configuration of a few-shot study: its tasks, and learners to compare.

Flennerhag et al. (2022), section 6 and appendix D; what they leave open is
after Finn et al. (2017), "Model-Agnostic Meta-Learning".
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Annotated, Any

import ml_collections

from bmg.configs.schema import checks

DATA_KINDS = ('sinusoid', 'digits', 'omniglot', 'miniimagenet')
_FOLDER_KINDS = ('omniglot', 'miniimagenet')
_NUM_DIGITS = 10


@dataclasses.dataclass(frozen=True)
class Data:
  """Where tasks come from."""

  kind: Annotated[str, checks.one_of(*DATA_KINDS)] = 'digits'
  # Omniglot and MiniImagenet: the folder with their images; see
  # docs/few_shot.md. `sha256`: its checksum, if that should be checked.
  folder: str = ''
  sha256: str = ''
  # What must be found there: classes of MiniImagenet's three splits, characters
  # of Omniglot's two folders. Empty: anything.
  num_classes: tuple[int, ...] = ()
  # Omniglot: so many alphabets, the last by name, of `images_background` are
  # for meta-validation.
  validation_alphabets: int = 5
  # Digits: which are for meta-validation and meta-test; the rest is for
  # meta-training. `flips`: mirror images are classes of their own.
  validation_digits: tuple[int, ...] = (3, 8)
  test_digits: tuple[int, ...] = (4, 7)
  flips: bool = False

  def __post_init__(self) -> None:
    checks.check_fields('data', self)
    if self.kind in _FOLDER_KINDS:
      checks.check(
        bool(self.folder),
        'data.folder',
        self.folder,
        f'must name the folder with the images of {self.kind}; '
        'docs/few_shot.md says what is in it',
      )
      checks.check(
        self.validation_alphabets >= 1,
        'data.validation_alphabets',
        self.validation_alphabets,
        'must be at least 1',
      )
    for name in ('validation_digits', 'test_digits'):
      value = getattr(self, name)
      checks.check(
        bool(value) and all(0 <= digit < _NUM_DIGITS for digit in value),
        f'data.{name}',
        value,
        'must be digits from 0 to 9',
      )
    held_out = self.validation_digits + self.test_digits
    checks.check(
      len(set(held_out)) == len(held_out) < _NUM_DIGITS,
      'data.test_digits',
      self.test_digits,
      'must leave some for meta-training, with no digit in two splits; '
      f'validation_digits = {self.validation_digits}',
    )
    num_folders = {'omniglot': 2, 'miniimagenet': 3}.get(self.kind)
    if self.num_classes and num_folders:
      checks.check(
        len(self.num_classes) == num_folders,
        'data.num_classes',
        self.num_classes,
        f'must be empty or {num_folders} numbers',
      )


@dataclasses.dataclass(frozen=True)
class Task:
  """The size of one task; a sinusoid has one way."""

  num_ways: checks.Count = 5
  # Examples of each class to adapt to (K-shot, not the paper's K), and those
  # to validate on.
  num_support: checks.Count = 5
  num_query: checks.Count = 15

  def __post_init__(self) -> None:
    checks.check_fields('task', self)


@dataclasses.dataclass(frozen=True)
class Network:
  """An MLP for sinusoids, MAML's convolutional network for images."""

  hidden: tuple[int, ...] = (40, 40)
  # Channels and number of its blocks.
  width: checks.Count = 32
  num_blocks: checks.Count = 4

  def __post_init__(self) -> None:
    checks.check_fields('network', self)
    checks.check(
      bool(self.hidden) and min(self.hidden) >= 1,
      'network.hidden',
      self.hidden,
      'must be at least one positive number',
    )


@dataclasses.dataclass(frozen=True)
class Learner:
  """One way to meta-learn an initialisation."""

  kind: Annotated[str, checks.one_of('maml', 'bmg')] = 'bmg'
  # Inner gradients count as constants (FOMAML); only the last layer adapts to
  # a task (ANIL).
  first_order: bool = False
  anil: bool = False
  # K and L.
  inner_updates: checks.Count = 5
  bootstrap_length: checks.Count = 5
  # Of SGD on a task, and of SGD on the way to the target; 0: the former.
  inner_learning_rate: checks.Positive = 0.01
  target_learning_rate: checks.NonNegative = 0.0
  # Of Adam.
  meta_learning_rate: checks.Positive = 1e-3
  # Tasks of one meta-step.
  meta_batch_size: checks.Count = 4
  # 'kl': KL(target || x^(K)); 'reverse_kl': KL(x^(K) || target).
  matching: Annotated[str, checks.one_of('kl', 'reverse_kl')] = 'kl'
  # The task's inputs to match predictions on.
  matching_inputs: Annotated[str, checks.one_of('query', 'support')] = 'query'
  # Regression: standard deviation of the Gaussians to match.
  matching_sigma: checks.Positive = 1.0


@dataclasses.dataclass(frozen=True)
class Study:
  """Learners to compare, on one kind of tasks."""

  # Seeds `seed`, `seed` + 1, ...; the tasks of evaluations depend on `seed`
  # alone, and are the same for all.
  seed: int = 1
  num_seeds: checks.Count = 3
  num_meta_steps: checks.Count = 5_000
  # Meta-steps from one evaluation to the next.
  eval_period: checks.Count = 250
  # Of meta-validation, and as many of meta-test.
  num_eval_tasks: checks.Count = 200
  # Checkpoints follow evaluations, but are at least so far apart.
  checkpoint_period_s: float = 60.0
  data: Data = Data()
  task: Task = Task()
  network: Network = Network()
  learners: Mapping[str, Learner] = types.MappingProxyType({})

  def __post_init__(self) -> None:
    checks.check(
      0 <= self.seed < 2**31, 'seed', self.seed, 'must lie in [0, 2^31)'
    )
    checks.check_fields('', self)
    checks.check(
      self.checkpoint_period_s >= 0,
      'checkpoint_period_s',
      self.checkpoint_period_s,
      'must not be negative',
    )
    for name, learner in self.learners.items():
      checks.check_fields(f'learners.{name}', learner)
    if self.data.kind != 'sinusoid':
      checks.check(
        self.task.num_ways >= 2,
        'task.num_ways',
        self.task.num_ways,
        'must be at least 2: there is nothing to tell apart',
      )


def from_config_dict(
  config_dict: Mapping[str, Any] | ml_collections.ConfigDict,
) -> Study:
  """Builds and checks a `Study`.

  Raises:
    ConfigError: a field is unknown, has the wrong type, or does not fit.
  """
  if isinstance(config_dict, ml_collections.ConfigDict):
    config_dict = config_dict.to_dict()
  values = dict(config_dict)
  # Their names are the user's, so these are not for `checks.build`.
  learners = values.pop('learners', {})
  checks.check(
    isinstance(learners, Mapping) and bool(learners),
    'learners',
    learners,
    'must be a group of at least one learner',
  )
  built = {}
  for name, learner in learners.items():
    path = f'learners.{name}'
    checks.check(
      name.isidentifier(), path, name, 'must be a name of letters and digits'
    )
    checks.check(
      isinstance(learner, Mapping), path, learner, 'must be a group of fields'
    )
    built[name] = checks.build(Learner, learner, prefix=f'{path}.')
  # Recipes do not keep an order.
  order = lambda item: (
    item[1].kind != 'maml',
    item[1].inner_updates,
    item[1].bootstrap_length,
    item[0],
  )
  study: Study = checks.build(Study, values)
  return dataclasses.replace(
    study, learners=dict(sorted(built.items(), key=order))
  )


def to_dict(study: Study) -> dict[str, Any]:
  """The inverse of `from_config_dict`."""
  values = {
    spec.name: getattr(study, spec.name) for spec in dataclasses.fields(study)
  }
  for name in ('data', 'task', 'network'):
    values[name] = dataclasses.asdict(values[name])
  values['learners'] = {
    name: dataclasses.asdict(learner)
    for name, learner in study.learners.items()
  }
  return values
