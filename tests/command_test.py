"""The command `bmg`: hands over to its subcommands, names what is unknown."""

import importlib
import subprocess
import sys

import pytest

import bmg
from bmg import __main__ as command


def test_help_lists_the_commands(capsys):
  with pytest.raises(SystemExit) as leaving:
    command.main(['bmg', '--help'])
  assert leaving.value.code == 0
  printed = capsys.readouterr().out
  for name, each in command.COMMANDS.items():
    assert f'  {name} ' in printed
    assert each.summary in printed


def test_a_command_is_needed(capsys):
  with pytest.raises(SystemExit) as leaving:
    command.main(['bmg'])
  assert leaving.value.code == 2
  assert 'usage: bmg COMMAND' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('trian', "there is no command 'trian'. Did you mean 'train'?"),
    ('two_colors', "Did you mean 'two-colors'?"),
    ('--workdir=runs', "there is no command '--workdir=runs' (commands: train"),
  ],
)
def test_an_unknown_command_is_named(name, expected, capsys):
  with pytest.raises(SystemExit) as leaving:
    command.main(['bmg', name])
  assert leaving.value.code == 2
  error = capsys.readouterr().err
  assert expected in error
  assert error.count('\n') == 1


def test_the_version_is_said(capsys):
  with pytest.raises(SystemExit) as leaving:
    command.main(['bmg', '--version'])
  assert leaving.value.code == 0
  assert capsys.readouterr().out == f'bmg {bmg.__version__}\n'


@pytest.mark.parametrize('name', command.COMMANDS)
def test_a_command_can_be_entered(name):
  module = importlib.import_module(f'bmg.{command.COMMANDS[name].module}')
  assert callable(module.entry)


@pytest.mark.parametrize(
  ('arguments', 'status', 'expected'),
  [
    (['train', '--help'], 0, '--workdir'),
    (['train', '--wrkdir=x', '--config=configs/atari_local.py'], 2, 'wrkdir'),
    (['plot', '--help'], 0, 'usage: bmg plot'),
  ],
)
def test_the_command_gets_its_arguments(arguments, status, expected):
  ended = subprocess.run(
    [sys.executable, '-m', 'bmg', *arguments],
    cwd=bmg.ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert ended.returncode == status
  assert expected in ended.stdout + ended.stderr
