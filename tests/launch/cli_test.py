import json
import subprocess
import sys

import pytest

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.commands import evaluate, train
from tests.launch import processes

_RECIPE = f'--config={processes.ROOT}/configs/atari_local.py'
_VARIANTS_RECIPE = f'--config={processes.VARIANTS_RECIPE}'

# Arguments after the recipe, and what the error has to mention: field or flag,
# value, what is allowed, the nearest name.
_BAD_ARGUMENTS = {
  'unknown field': (['--config.sed=3'], ['config.sed', "'3'", "'seed'"]),
  'unknown nested field': (
    ['--config.env.gme=pong'],
    ['config.env.gme', "'pong'", "'game'", 'sticky_action_probability'],
  ),
  'unknown group': (['--config.envv.game=x'], ['config.envv.game', "'env'"]),
  'unknown negated field': (
    ['--noconfig.replay.chekpoint'],
    ['config.replay.chekpoint', "'checkpoint'"],
  ),
  'field of a value': (['--config.seed.x=1'], ['config.seed.x']),
  'value for a group': (['--config.env=pong'], ['config.env', 'game']),
  'text for an int': (
    ['--config.seed=abc'],
    ['config.seed', "'abc'", 'whole number'],
  ),
  'fraction for an int': (['--config.seed=0.5'], ['config.seed', "'0.5'"]),
  'text for a float': (
    ['--config.meta.learning_rate=fast'],
    ['config.meta.learning_rate', "'fast'", 'a number'],
  ),
  'text for a bool': (
    ['--config.replay.checkpoint=maybe'],
    ['config.replay.checkpoint', "'maybe'", 'true or false'],
  ),
  'text in a tuple': (
    ['--config.agent.head_hidden=(a,)'],
    ['config.agent.head_hidden'],
  ),
  'text for a placeholder': (
    ['--config.env.height=tall'],
    ['config.env.height', "'tall'"],
  ),
  'unknown game': (
    ['--config.env.game=brekout'],
    ['config.env.game', "'brekout'", "'breakout'"],
  ),
  'unknown choice': (
    ['--config.meta.mode=bgm'],
    ['config.meta.mode', "'bgm'", 'bmg, mg, none', "Did you mean 'bmg'"],
  ),
  'no such function': (
    ['--config.meta.matching=bmg.agents.matching:k'],
    ['config.meta.matching', "'bmg.agents.matching:k'", 'cannot be imported'],
  ),
  'impossible combination': (
    ['--config.replay.online_capacity=1'],
    ['config.replay.online_capacity', '1', 'replay.online_batch'],
  ),
  'missing value': (['--config.seed'], ['--config.seed']),
  'unknown flag': (['--wrkdir=x'], ['wrkdir', 'workdir']),
  'unknown launcher': (
    ['--launcher=slrm'],
    ['slrm', 'local, threads', "'slurm'"],
  ),
  'argument without a flag': (['pong'], ["'pong'"]),
}


@pytest.mark.parametrize('case', _BAD_ARGUMENTS)
def test_bad_arguments_are_named(case, tmp_path):
  arguments, mentioned = _BAD_ARGUMENTS[case]
  workdir = tmp_path / 'run'
  with pytest.raises((cli.UsageError, checks.ConfigError)) as raised:
    train.main(['train', _RECIPE, f'--workdir={workdir}', *arguments])
  message = str(raised.value)
  assert '\n' not in message
  for text in mentioned:
    assert text in message
  # Nothing was started.
  assert not workdir.exists()


@pytest.mark.parametrize(
  ('content', 'mentioned'),
  [
    (None, 'no such file'),
    ('def get_config(:', 'SyntaxError'),
    ('x = 1', 'not a recipe'),
    ("def get_config():\n  raise RuntimeError('oh')", 'RuntimeError: oh'),
    ("def get_config():\n  return {}['k']", "KeyError: 'k'"),
    ('raise SystemExit(4)', 'SystemExit: 4'),
    ('def get_config():\n  return 3', 'returns a ConfigDict'),
  ],
)
def test_a_recipe_that_cannot_be_read_is_named(tmp_path, content, mentioned):
  recipe = tmp_path / 'recipe.py'
  if content is not None:
    recipe.write_text(content)
  with pytest.raises(cli.UsageError, match=mentioned) as raised:
    train.main(['train', f'--config={recipe}'])
  assert str(recipe) in str(raised.value)


@pytest.mark.parametrize(
  ('variant', 'mode', 'length'), [('', 'bmg', 1), (':bmg-l4', 'bmg', 4)]
)
def test_a_variant_of_a_recipe_takes_overrides(variant, mode, length):
  config = cli.parse_with_config(
    cli.flags.FlagValues(),
    ['train', f'{_VARIANTS_RECIPE}{variant}', '--config.env.game=boxing'],
  )
  assert (config.meta.mode, config.meta.bootstrap_length) == (mode, length)
  assert config.env.game == 'boxing'


@pytest.mark.parametrize(
  ('argument', 'mentioned'),
  [
    (
      f'{_VARIANTS_RECIPE}:bgm',
      [':bgm: ', "'bgm'", 'none, mg, bmg, bmg-l4', "Did you mean 'bmg'"],
    ),
    (f'{_VARIANTS_RECIPE}:', ["'' is not", 'none, mg, bmg']),
    (f'{_RECIPE}:bmg', [':bmg: ', 'has no variants', 'VARIANTS']),
  ],
)
def test_an_unknown_variant_is_named(argument, mentioned):
  with pytest.raises(cli.UsageError) as raised:
    train.main(['train', argument])
  message = str(raised.value)
  assert '\n' not in message
  for text in mentioned:
    assert text in message


@pytest.mark.parametrize(
  'names', ["'bmg'", "('a/b',)", "('all',)", '(1,)', '3']
)
def test_variants_that_cannot_be_folders_are_refused(tmp_path, names):
  recipe = tmp_path / 'recipe.py'
  recipe.write_text(f'VARIANTS = {names}\ndef get_config(variant): pass')
  with pytest.raises(cli.UsageError, match=r'VARIANTS = .* must hold names'):
    train.main(['train', f'--config={recipe}:bmg'])


def test_variants_may_be_keys_of_a_mapping(tmp_path):
  recipe = tmp_path / 'recipe.py'
  recipe.write_text("VARIANTS = {'l2': 2, 'l1.5': 1.5}")
  assert cli.variants(str(recipe)) == ('l2', 'l1.5')


def test_the_last_value_of_a_flag_is_taken():
  argv = ['train', '-a', '3', '--b', '2', '--a=1', '--a=5', '--config.a=4']
  assert cli.take_flag(argv, 'a') == (
    '5',
    ['train', '--b', '2', '--config.a=4'],
  )
  assert cli.take_flag(['train', '--b'], 'b') == (None, ['train'])


def test_a_misspelt_field_in_a_recipe_is_named(tmp_path):
  recipe = tmp_path / 'recipe.py'
  recipe.write_text(
    'from bmg.configs import base\n'
    'def get_config():\n'
    '  config = base.get_config()\n'
    '  config.env.gamee = 1\n'
    '  return config\n'
  )
  with pytest.raises(checks.ConfigError, match="Did you mean 'game'"):
    train.main(['train', f'--config={recipe}'])


def test_a_missing_recipe_lists_those_there_are():
  with pytest.raises(cli.UsageError, match=r'configs/atari_local\.py'):
    train.main(['train'])


def test_a_folder_that_cannot_be_written_to_is_named():
  with pytest.raises(cli.UsageError, match='workdir=/proc/run'):
    train.main(['train', _RECIPE, '--workdir=/proc/run'])


@pytest.mark.parametrize(
  ('arguments', 'mentioned'),
  [
    ([], 'workdir is missing'),
    (['--workdir=/nowhere'], 'not the folder of a run'),
    (['--workdir=/nowhere', '--checkpoint=bst'], 'latest|best'),
    (['--workdir=/nowhere', '--num_episodes=0'], 'positive'),
  ],
)
def test_bad_arguments_of_evaluate_are_named(arguments, mentioned):
  with pytest.raises(cli.UsageError) as raised:
    evaluate.main(['evaluate', *arguments])
  assert mentioned in str(raised.value)


def test_a_folder_without_a_configuration_is_named(tmp_path):
  (tmp_path / 'config.json').write_text('[3]')
  with pytest.raises(cli.UsageError, match=r'config\.json cannot be read'):
    evaluate.main(['evaluate', f'--workdir={tmp_path}'])


def test_a_film_of_an_unknown_kind_is_named(tmp_path):
  config = schema.to_dict(processes.small_config())
  (tmp_path / 'config.json').write_text(json.dumps(config))
  result = subprocess.run(
    [
      *(
        sys.executable,
        '-m',
        'bmg.launch.commands.evaluate',
        '--video=film.avi',
      ),
      f'--workdir={tmp_path}',
    ],
    cwd=processes.ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == cli.USAGE_STATUS
  assert result.stderr.startswith("error: --video='film.avi': ")
  assert result.stderr.count('\n') == 1


def test_overrides_are_applied():
  flag_values = cli.flags.FlagValues()
  config = cli.parse_with_config(
    flag_values,
    [
      'train',
      _RECIPE,
      '--config.env.game=boxing',
      '--config.env.protocol=common84',
      '--config.env.grayscale=false',
      '--config.agent.head_hidden=(32,)',
      '--config.optimizer.learning_rate=1',
    ],
  )
  assert config.env.game == 'boxing'
  assert config.env.frame_shape == (84, 84, 3)
  assert config.agent.head_hidden == (32,)
  assert config.optimizer.learning_rate == 1.0


@pytest.mark.parametrize('recipe', cli.recipes())
def test_every_recipe_is_complete(recipe):
  path = str(processes.ROOT / recipe)
  for given in (path, *(f'{path}:{name}' for name in cli.variants(path))):
    flag_values = cli.flags.FlagValues()
    assert cli.parse_with_config(flag_values, ['train', f'--config={given}'])


def test_the_process_prints_one_line_and_status_2(tmp_path):
  result = subprocess.run(
    [
      *(sys.executable, '-m', 'bmg.launch.commands.train', _RECIPE),
      *('--config.env.game=brekout', f'--workdir={tmp_path / "run"}'),
    ],
    cwd=processes.ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 2
  assert result.stderr.startswith('error: config.env.game')
  assert result.stderr.count('\n') == 1
