import dataclasses
import json

import pytest

from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.sweep import folder
from tests.launch import processes
from tests.launch.sweep import fake_sweep


def test_another_kind_of_sweep_is_refused_once_cells_were_trained(tmp_path):
  workdir = str(tmp_path)
  config = processes.small_config()
  folder.write(workdir, fake_sweep.settings(config), ['sweep'])
  other = dataclasses.replace(
    config, optimizer=dataclasses.replace(config.optimizer, learning_rate=0.5)
  )
  assert folder.check(workdir, fake_sweep.settings(other)) == [
    f'config.optimizer.learning_rate: {config.optimizer.learning_rate} -> 0.5'
  ]
  (tmp_path / 'pong-1/checkpoints/7').mkdir(parents=True)
  with pytest.raises(checks.ConfigError, match=r'optimizer\.learning_rate'):
    folder.check(workdir, fake_sweep.settings(other))
  # What only steers may change, and there may be more to do.
  longer = dataclasses.replace(config, num_frames=300_000_000, seed=9)
  assert folder.check(workdir, fake_sweep.settings(longer, seeds=(1, 2))) == [
    'seeds: (1,) -> (1, 2)',
    'config.num_frames: 200000000 -> 300000000',
  ]
  with pytest.raises(cli.UsageError, match='--launcher=kubernetes'):
    folder.check(workdir, fake_sweep.settings(config, launcher='kubernetes'))
  saved = folder.read(workdir)
  assert (saved.games, saved.seeds) == (('pong',), (1,))
  assert saved.num_frames == config.num_frames


# What `write` made of the sweep of one recipe before there were variants.
_WITHOUT_VARIANTS = {
  'recipe': 'recipe.py',
  'overrides': {},
  'launcher': 'local',
  'games': ['pong'],
  'seeds': [1],
  'starts': [{'command_line': ['sweep']}],
}


def test_a_sweep_from_before_variants_goes_on_in_its_form(tmp_path):
  workdir = str(tmp_path)
  config = processes.small_config()
  settings = fake_sweep.settings(config)
  saved = {**_WITHOUT_VARIANTS, 'config': settings.configs['']}
  path = tmp_path / 'sweep.json'
  path.write_text(json.dumps(saved))
  (tmp_path / 'pong-1/checkpoints/7').mkdir(parents=True)
  assert folder.check(workdir, settings) == []
  folder.write(workdir, settings, ['again'])
  written = json.loads(path.read_text())
  assert [s['command_line'] for s in written['starts']] == [
    ['sweep'],
    ['again'],
  ]
  assert written.keys() == saved.keys()
  assert written['config'] == json.loads(json.dumps(settings.configs['']))
  with pytest.raises(cli.UsageError, match='trained without variants'):
    folder.check(workdir, fake_sweep.settings(config, variants=('bmg',)))


def _with_learning_rate(value):
  config = processes.small_config()
  optimizer = dataclasses.replace(config.optimizer, learning_rate=value)
  return dataclasses.replace(config, optimizer=optimizer)


@pytest.mark.parametrize(
  ('launcher', 'trained'),
  [('local', 'b/pong-1'), ('kubernetes', 'b-pong-1')],
)
def test_a_variant_may_not_change_once_it_was_trained(
  tmp_path, launcher, trained
):
  workdir = str(tmp_path)
  one, two, three = map(_with_learning_rate, (0.1, 0.2, 0.3))

  def settings(**configs):
    return fake_sweep.settings(
      *configs.values(), variants=tuple(configs), launcher=launcher
    )

  folder.write(workdir, settings(a=one, b=two), ['sweep'])
  (tmp_path / trained / 'checkpoints/7').mkdir(parents=True)
  field = 'config.optimizer.learning_rate'
  # Each is compared with what it was itself.
  assert folder.check(workdir, settings(a=one, b=two)) == []
  assert folder.check(workdir, settings(a=three, b=two)) == [
    f'{field} of a: 0.1 -> 0.3'
  ]
  with pytest.raises(checks.ConfigError, match=r"variant 'b' .* with 0\.2"):
    folder.check(workdir, settings(a=one, b=three))
  # There may be more of them, and fewer.
  assert folder.check(workdir, settings(a=one, b=two, c=three)) == [
    "variants: ('a', 'b') -> ('a', 'b', 'c')"
  ]
  folder.write(workdir, settings(a=one), ['sweep'])
  assert folder.read(workdir).variants == ('a',)
  # What was trained is remembered, though it was left out for a while.
  with pytest.raises(checks.ConfigError, match=r"variant 'b' .* with 0\.2"):
    folder.check(workdir, settings(a=one, b=three))
  with pytest.raises(cli.UsageError, match=r'--variants is missing: .* a, b;'):
    folder.check(workdir, fake_sweep.settings(one, launcher=launcher))


def test_variants_may_come_and_go_before_any_was_trained(tmp_path):
  workdir = str(tmp_path)
  config = processes.small_config()
  with_variants = fake_sweep.settings(config, config, variants=('a', 'b'))
  for settings in (with_variants, fake_sweep.settings(config), with_variants):
    folder.check(workdir, settings)
    folder.write(workdir, settings, ['sweep'])
    assert folder.read(workdir).variants == settings.variants


@pytest.mark.parametrize('content', ['', '[]', '{"config": {}}', '{}'])
def test_a_damaged_sweep_is_named(tmp_path, content):
  (tmp_path / 'sweep.json').write_text(content)
  with pytest.raises(cli.UsageError, match=r'sweep\.json cannot be read'):
    folder.read(str(tmp_path))


def test_the_folder_of_a_run_takes_no_sweep(tmp_path):
  (tmp_path / 'config.json').touch()
  with pytest.raises(cli.UsageError, match='single run'):
    folder.check(str(tmp_path), fake_sweep.settings(processes.small_config()))
