import shlex

import pytest

from configs import checks
from evaluation import atari_scores
from launch import cli, dns
from launch.sweep import __main__ as sweep
from launch.sweep import (
  cells,
)
from tests.launch import processes

_RECIPE = f'--config={processes.ROOT}/configs/atari_local.py'


_BAD_ARGUMENTS = {
  'no games': (['--seeds=3'], ['--games is missing', 'atari57']),
  'unknown game': (
    ['--games=pong,brekout'],
    ['--games', "'brekout'", "'breakout'", 'atari57, atari5'],
  ),
  'unknown group': (['--games=atari75'], ["'atari75'", "Did you mean 'atari5"]),
  'a game twice': (['--games=pong,pong'], ['--games=pong,pong', 'twice']),
  'no seed': (['--games=pong', '--seeds=x'], ['--seeds=x', '2^31', '4,7']),
  'negative seed': (['--games=pong', '--seeds=-1,2'], ['--seeds=-1,2']),
  'a seed twice': (['--games=pong', '--seeds=3,3'], ['--seeds=3,3', 'twice']),
  'no seeds': (['--games=pong', '--seeds=0'], ['--seeds=0', 'between 1']),
  'one large seed': (['--games=pong', '--seeds=4711'], ['--seeds=4711,']),
  'launcher': (
    ['--games=pong', '--launcher=slrm'],
    ['--launcher=slrm', 'local, slurm, kubernetes', "'slurm'"],
  ),
  'a game as override': (
    ['--games=pong', '--config.env.game=pong'],
    ['--config.env.game=pong', '--games'],
  ),
  'a seed as override': (
    ['--games=pong', '--config.seed=3'],
    ['--config.seed=3', '--seeds'],
  ),
  'bad override': (['--games=pong', '--config.sed=3'], ["'seed'"]),
  'bad number': (['--games=pong', '--max_running=0'], ['--max_running=0']),
  'unknown flag': (['--games=pong', '--max_runing=2'], ['max_running']),
  'bad status': (['--stats'], ['stat']),
}


@pytest.mark.parametrize('case', _BAD_ARGUMENTS)
def test_bad_arguments_are_named(case, tmp_path):
  arguments, mentioned = _BAD_ARGUMENTS[case]
  workdir = tmp_path / 'sweep'
  with pytest.raises((cli.UsageError, checks.ConfigError)) as raised:
    sweep.main(['sweep', _RECIPE, f'--workdir={workdir}', *arguments])
  message = str(raised.value)
  assert '\n' not in message
  for text in mentioned:
    assert text in message
  assert not workdir.exists()


def test_status_of_no_sweep_is_named(tmp_path):
  with pytest.raises(cli.UsageError, match=r'sweep\.json cannot be read'):
    sweep.main(['sweep', '--status', f'--workdir={tmp_path}'])
  with pytest.raises(cli.UsageError, match='--workdir is missing'):
    sweep.main(['sweep', '--status'])


def test_games_and_seeds():
  assert len(cells.parse_games('atari57')) == 57
  assert cells.parse_games('atari5') == tuple(atari_scores.ATARI5)
  assert set(atari_scores.ATARI5) < set(cells.parse_games('atari57'))
  assert cells.parse_games('pong, qbert') == ('pong', 'qbert')
  assert cells.parse_seeds('3') == (1, 2, 3)
  assert cells.parse_seeds('4,7') == (4, 7)
  assert cells.parse_seeds('4711,') == (4711,)


def test_kubernetes_keeps_the_folder_of_each_cell_by_its_name():
  games = ('pong', 'battle_zone')
  pong, battle_zone = cells.make_cells('/runs', games, (1,), 'kubernetes')
  assert pong.workdir == '/runs/pong-1'
  name = dns.run_name(battle_zone.workdir)
  assert battle_zone.workdir == f'/runs/{name}'


def test_a_dry_run_prints_commands_that_train_would_understand(
  tmp_path, capsys
):
  workdir = tmp_path / 'a sweep'
  status = sweep.main(
    [
      *('sweep', '--games=pong,boxing', '--seeds=4,7', '--dry_run'),
      *(f'--workdir={workdir}', _RECIPE, '--config.num_frames', '5000'),
      *('--config.agent.head_hidden=(32,)', '--noconfig.replay.checkpoint'),
      *('--config.optimizer.learning_rate=1e-4', '--config.meta.mode=mg'),
    ]
  )
  assert status == 0
  assert not workdir.exists()
  lines = capsys.readouterr().out.splitlines()
  commands = [shlex.split(line) for line in lines if line[0] != '#']
  assert len(commands) == 4
  for command, (game, seed) in zip(
    commands,
    [('pong', 4), ('boxing', 4), ('pong', 7), ('boxing', 7)],
    strict=True,
  ):
    assert command[1:3] == ['-m', 'launch.train']
    flag_values = cli.flags.FlagValues()
    for name in ('workdir', 'launcher'):
      cli.flags.DEFINE_string(name, None, '', flag_values=flag_values)
    config = cli.parse_with_config(flag_values, command[2:])
    assert (config.env.game, config.seed) == (game, seed)
    assert config.num_frames == 5000
    assert config.agent.head_hidden == (32,)
    assert config.meta.mode == 'mg'
    assert config.optimizer.learning_rate == 1e-4
    assert flag_values['workdir'].value == f'{workdir}/{game}-{seed}'
