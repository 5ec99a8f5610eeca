"""Compares MAML and BMG, and resumes where it was stopped.

Usage: python -m bmg few-shot --config=configs/few_shot/digits.py
         --workdir=runs/few_shot/digits --only=maml_k5,bmg_k5_l5
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags, logging

from bmg import errors
from bmg.configs.few_shot import schema
from bmg.configs.schema import checks, fields
from bmg.experiments import command
from bmg.experiments.few_shot import images, report, tasks, training
from bmg.launch import cli
from bmg.launch.local import launcher as local
from bmg.launch.run import files
from bmg.learner import checkpoints

_KIND = cli.RecipeKind(
  tuple(
    f'few_shot/{name}.py'
    for name in ('digits', 'miniimagenet', 'omniglot', 'sinusoid')
  ),
  schema.from_config_dict,
)
_DEFAULT_RECIPE = 'configs/few_shot/digits.py'


def main(argv: Sequence[str]) -> int:
  """Runs a study, or what is left of it, and reports.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status, 0; also if it was stopped by a signal.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: images are missing, a checkpoint cannot be read, or a learner
      has diverged; the others have been run all the same.
  """
  argv = command.with_default_recipe(argv, _DEFAULT_RECIPE)
  flag_values = _define_flags()
  study = cli.parse_with_recipe(flag_values, argv, _KIND)
  args: dict[str, Any] = {
    name: flag_values[name].value for name in ('workdir', 'only', 'checksum')
  }
  if args['checksum']:
    return _print_checksum(study.data)
  names = command.choose('learners', list(study.learners), args['only'])
  workdir = args['workdir'] or _default_workdir(argv)
  fingerprint = fields.flatten(schema.to_dict(study))
  _check_same(workdir, fingerprint)
  source = tasks.make_source(study.data, study.task)
  try:
    with local.lock(workdir):
      # Only now: a folder should not hold on to a configuration that does not
      # do.
      _write_config(workdir, study)
      return _run(study, names, source, workdir, fingerprint)
  except local.LaunchError as error:
    raise cli.UsageError(str(error)) from error


def _run(
  study: schema.Study,
  names: Sequence[str],
  source: tasks.Source,
  workdir: str,
  fingerprint: Mapping[str, Any],
) -> int:
  """Runs the learners one after the other, then reports on all there are."""
  stop = command.stop_on_signals()
  diverged = []
  for name in names:
    trainer = training.Trainer(study, name, source, workdir, fingerprint)
    try:
      if not all(trainer.run(seed, stop) for seed in training.seeds(study)):
        print(f'Stopped; the same command goes on from here: {workdir}')
        return 0
    except training.DivergedError as error:
      print(error, flush=True)
      diverged.append(str(error))
    except checkpoints.SaveError as error:
      raise cli.UsageError(f'--workdir={workdir}: {error}') from error
  print(report.write(study, workdir))
  if diverged:
    raise errors.FatalError('; '.join(diverged))
  return 0


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'workdir',
    None,
    'Folder for checkpoints and results; by default runs/few_shot/<recipe>.',
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    'only', [], 'Learners to run; by default all.', flag_values=flag_values
  )
  flags.DEFINE_boolean(
    'checksum',
    False,
    'Print what config.data.sha256 should be for config.data.folder; no more.',
    flag_values=flag_values,
  )
  return flag_values


def _default_workdir(argv: Sequence[str]) -> str:
  for index, word in enumerate(argv):
    name, separator, value = word.lstrip('-').partition('=')
    if word.startswith('-') and name == 'config':
      recipe = value if separator else argv[index + 1]
      return f'runs/few_shot/{pathlib.Path(recipe).stem}'
  raise AssertionError('there is always a recipe')


def _print_checksum(data: schema.Data) -> int:
  if not data.folder:
    raise checks.ConfigError(
      'data.folder', data.folder, 'must name a folder for --checksum'
    )
  images.check_folder(data)
  print(images.checksum(data.folder))
  return 0


def _check_same(workdir: str, fingerprint: Mapping[str, Any]) -> None:
  """Refuses a folder that was made with another configuration."""
  saved = files.read_json(files.config(workdir))
  before = fingerprint if saved is None else fields.flatten(saved)
  for field in [*fingerprint, *before]:
    if before.get(field) != fingerprint.get(field):
      raise cli.UsageError(
        f'config.{field} = {fingerprint.get(field)!r}: {workdir} was made with '
        f'{before.get(field)!r}; resume with that, or choose another workdir'
      )


def _write_config(workdir: str, study: schema.Study) -> None:
  try:
    files.write_json(files.config(workdir), schema.to_dict(study))
  except OSError as error:
    raise cli.UsageError(
      f'--workdir={workdir}: cannot be written to: {error.strerror}'
    ) from error


def entry() -> None:
  """The command `bmg few-shot`."""
  # Of the whole process, so not in `main`: Orbax has much to say.
  logging.set_verbosity(logging.ERROR)
  cli.run_main(main)


if __name__ == '__main__':
  entry()
