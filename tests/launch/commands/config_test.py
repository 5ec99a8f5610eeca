import json
import subprocess
import sys

import pytest

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.commands import config, sweep, train
from tests.launch import processes

_RECIPE = f'--config={processes.ROOT}/configs/atari_local.py'


def test_prints_what_a_recipe_and_overrides_make(capsys):
  assert config.main(['config', _RECIPE, '--config.env.game=boxing']) == 0
  title, *lines = capsys.readouterr().out.splitlines()
  stars = [line for line in lines if line.startswith('* ')]
  assert f'the {len(stars)} fields marked by *' in title
  assert "* env.game = 'boxing'  (default: 'pong')" in stars
  # Of the protocol that the recipe names.
  assert '* env.height = 42  (default: 210)' in stars
  assert '  # Steps (not frames) in one unroll, T.' in lines
  assert '  actors.unroll_length = 20' in lines


@pytest.mark.parametrize(
  ('overrides', 'title'),
  [
    ([], 'every field has its default'),
    (['--config.seed=3'], 'the field marked by * differs'),
    (['--slurm.partition=gpu'], 'the field marked by * differs'),
  ],
)
def test_without_a_recipe_the_defaults_are_printed(overrides, title, capsys):
  assert config.main(['config', *overrides]) == 0
  assert title in capsys.readouterr().out.partition('\n')[0]


def test_json_is_that_of_a_run_s_folder(capsys):
  arguments = [_RECIPE, '--config.agent.head_hidden=(8,)']
  assert config.main(['config', '--json', *arguments]) == 0
  printed = schema.from_config_dict(json.loads(capsys.readouterr().out))
  expected = cli.parse_with_config(
    cli.flags.FlagValues(), ['train', *arguments]
  )
  assert printed == expected


def test_an_unknown_field_is_named():
  with pytest.raises(checks.ConfigError, match="Did you mean 'seed'"):
    config.main(['config', '--config.sed=3'])


@pytest.mark.parametrize('command', [train, sweep, config])
def test_help_lists_recipes_and_fields(command, capsys):
  with pytest.raises(SystemExit) as leaving:
    command.main(['a command', '--help'])
  assert leaving.value.code == 0
  printed = capsys.readouterr().out
  for recipe in cli.recipes():
    assert f'  {recipe}\n' in printed
  assert 'Variants: stacx, bmg_l2_sgd' in printed
  assert '  # Steps (not frames) in one unroll, T.\n' in printed
  assert '! --config.actors.unroll_length: int = 20\n' in printed
  assert max(map(len, printed.splitlines())) <= 80


def test_help_does_without_jax():
  ended = subprocess.run(
    [
      *(sys.executable, '-c'),
      'import sys\n'
      'from bmg import __main__ as command\n'
      'try:\n'
      "  command.main(['bmg', 'train', '--help'])\n"
      'finally:\n'
      "  print('jax' in sys.modules)",
    ],
    cwd=processes.ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert ended.stdout.endswith('\nFalse\n')


def test_a_reader_may_leave_early():
  with subprocess.Popen(
    [sys.executable, '-m', 'bmg', 'train', '--help'],
    cwd=processes.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  ) as process:
    process.stdout.close()
    assert process.stderr.read() == b''
    assert process.wait(timeout=60) == 0
