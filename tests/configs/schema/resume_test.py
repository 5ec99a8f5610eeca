"""All that ask whether a field may change on resume get the same answer."""

import copy
import dataclasses

import pytest

from bmg.configs import schema
from bmg.configs.schema import checks, fields, resume
from bmg.evaluation.report import collect
from bmg.launch.run import folder as run_folder
from bmg.launch.sweep import folder as sweep_folder
from bmg.learner import checkpoints
from tests.launch import processes
from tests.launch.sweep import fake_sweep

_CONFIG = processes.small_config()
_FIELDS = tuple(fields.flatten(schema.to_dict(_CONFIG)))
_COMMON = sweep_folder.common_configs({'': _CONFIG})['']
_Kind = resume.Kind


def _changed(values, field, value=None):
  """Returns a saved configuration without a field, or with another value."""
  changed = copy.deepcopy(values)
  *path, name = field.split('.')
  section = changed
  for step in path:
    section = section[step]
  del section[name]
  if value is not None:
    section[name] = value
  return changed


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """The folder of a run, or a sweep, that has a checkpoint."""
  folder = tmp_path_factory.mktemp('trained')
  (folder / 'checkpoints' / '7').mkdir(parents=True)
  (folder / 'pong-1' / 'checkpoints' / '7').mkdir(parents=True)
  (folder / 'sweep.json').write_text('{}')
  return str(folder)


@pytest.fixture
def resume_run(workdir, monkeypatch):
  """Resumes a run whose configuration was another."""
  monkeypatch.setattr(run_folder.files, 'write_json', lambda *_: None)
  monkeypatch.setattr(run_folder.provenance, 'record_start', lambda *_: None)

  def resume_from(values):
    monkeypatch.setattr(run_folder.files, 'read_json', lambda *_: values)
    return run_folder.prepare(_CONFIG, workdir, ['train'])

  return resume_from


@pytest.fixture
def resume_sweep(workdir, monkeypatch):
  """Resumes a sweep whose configuration was another."""
  settings = fake_sweep.settings(_CONFIG)

  def resume_from(values):
    before = dataclasses.replace(settings, configs={'': values})
    monkeypatch.setattr(sweep_folder, 'read', lambda _: before)
    return sweep_folder.check(workdir, settings)

  return resume_from


def _is_refused(attempt, field):
  try:
    changes = attempt()
  except checks.ConfigError as error:
    refusal = error
  else:
    assert len(changes) == 1
    assert changes[0].removeprefix('config.').startswith(f'{field}: another')
    return False
  assert refusal.field == field
  assert "with 'another'; go on with that" in str(refusal)
  return True


@pytest.mark.parametrize('field', _FIELDS)
def test_a_run_refuses_what_is_fixed_and_nothing_else(field, resume_run):
  before = _changed(schema.to_dict(_CONFIG), field, 'another')
  refused = _is_refused(lambda: resume_run(before), field)
  assert refused == (fields.kind(field) is _Kind.FIXED)


@pytest.mark.parametrize('field', _FIELDS)
def test_a_checkpoint_holds_what_is_fixed_and_nothing_else(field):
  held = checkpoints.fingerprint(_CONFIG, 6)
  assert (field in held) == (fields.kind(field) is _Kind.FIXED)


# Each cell of a sweep has its own game and seed.
@pytest.mark.parametrize('field', sorted({*_FIELDS} - {'seed', 'env.game'}))
def test_a_sweep_refuses_what_changes_learning(field, resume_sweep):
  before = _changed(_COMMON, field, 'another')
  refused = _is_refused(lambda: resume_sweep(before), field)
  assert refused == (fields.kind(field) > _Kind.EXTENT)


@pytest.mark.parametrize('field', _FIELDS)
def test_a_report_passes_over_machinery_alone(field):
  matters = collect.Difference('label', field, {}).matters
  assert matters == (fields.kind(field) is not _Kind.MACHINERY)


@pytest.mark.parametrize(
  ('field', 'kind'),
  [
    ('seed', _Kind.FIXED),
    ('num_frames', _Kind.EXTENT),
    ('env.game', _Kind.FIXED),
    ('actors.num_actors', _Kind.MACHINERY),
    ('actors.unroll_length', _Kind.FIXED),
    ('actors.envs_per_actor', _Kind.LEARNING),
    ('agent.torso', _Kind.FIXED),
    # Parameters are float32 with either.
    ('agent.torso_dtype', _Kind.LEARNING),
    ('meta.context.inputs', _Kind.FIXED),
    ('meta.context.decay', _Kind.LEARNING),
    ('meta.target_optimizer.name', _Kind.FIXED),
    ('meta.target_optimizer.decay', _Kind.LEARNING),
    ('meta.parameters.leak.high', _Kind.FIXED),
    ('learner.num_hosts', _Kind.MACHINERY),
    ('cluster.learner.cpus', _Kind.MACHINERY),
    # Of another revision: as what would be around it.
    ('slurm.no_such_field', _Kind.MACHINERY),
    ('no_such_section.field', _Kind.LEARNING),
  ],
)
def test_a_field_is_of_its_own_kind_or_of_its_section_s(field, kind):
  assert fields.kind(field) is kind


@pytest.mark.parametrize('field', ['agent.outer_critic', 'env.max_pool'])
def test_what_an_older_revision_did_not_have_is_no_obstacle(
  field, resume_run, resume_sweep
):
  values = schema.to_dict(_CONFIG)
  change = f'{field}: None -> {fields.get(values, field)}'
  assert resume_sweep(_changed(_COMMON, field)) == [f'config.{change}']
  assert resume_run(_changed(values, field)) == [change]
