import shlex

import pytest

from bmg.configs.schema import checks
from bmg.evaluation import atari_scores
from bmg.launch import cli
from bmg.launch.commands import sweep
from bmg.launch.kubernetes import dns
from bmg.launch.sweep import cells
from tests.launch import processes

_RECIPE = f'--config={processes.ROOT}/configs/atari_local.py'
_VARIANTS_RECIPE = f'--config={processes.VARIANTS_RECIPE}'


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
  'variants of a recipe without': (
    ['--games=pong', '--variants=all'],
    ['--variants=all', 'atari_local.py has no variants', 'VARIANTS'],
  ),
}
# As above, of a recipe with variants.
_BAD_VARIANTS = {
  'unknown variant': (
    ['--variants=none,bgm'],
    ['--variants=none,bgm', "'bgm'", 'none, mg, bmg, bmg-l4', "mean 'bmg'"],
  ),
  'no variant': (['--variants=,'], ['--variants=,', 'none, mg, bmg, bmg-l4']),
  'a variant twice': (['--variants=mg,mg'], ['--variants=mg,mg', 'twice']),
  'field that one variant does not bear': (
    [
      *('--variants=none,bmg', '--config.meta.policy_matching_weight=0'),
      '--config.meta.value_matching_weight=0',
    ],
    ["variant 'bmg'", 'config.meta.policy_matching_weight'],
  ),
  'bad number': (['--variants=mg', '--max_running=0'], ['--max_running=0']),
}


@pytest.mark.parametrize('case', _BAD_ARGUMENTS)
def test_bad_arguments_are_named(case, tmp_path):
  arguments, mentioned = _BAD_ARGUMENTS[case]
  _check_refused(tmp_path, [_RECIPE, *arguments], mentioned)


def _check_refused(tmp_path, arguments, mentioned):
  workdir = tmp_path / 'sweep'
  with pytest.raises((cli.UsageError, checks.ConfigError)) as raised:
    sweep.main(['sweep', f'--workdir={workdir}', *arguments])
  message = str(raised.value)
  assert '\n' not in message
  for text in mentioned:
    assert text in message
  assert not workdir.exists()


@pytest.mark.parametrize('case', _BAD_VARIANTS)
def test_bad_variants_are_named(case, tmp_path):
  arguments, mentioned = _BAD_VARIANTS[case]
  arguments = [_VARIANTS_RECIPE, '--games=pong', *arguments]
  _check_refused(tmp_path, arguments, mentioned)


def test_variants_are_named_in_one_place_alone(tmp_path):
  _check_refused(
    tmp_path,
    [f'{_VARIANTS_RECIPE}:bmg', '--games=pong', '--variants=mg'],
    ['variants_recipe.py:bmg', '--variants=mg'],
  )


def test_variants_are_equally_long(tmp_path):
  recipe = tmp_path / 'recipe.py'
  recipe.write_text(
    'from bmg.configs import base\n'
    "VARIANTS = {'short': 5000, 'long': 7000}\n"
    'def get_config(variant):\n'
    '  config = base.get_config()\n'
    '  config.num_frames = VARIANTS[variant]\n'
    '  return config\n'
  )
  arguments = [f'--config={recipe}', '--games=pong', '--variants=all']
  _check_refused(
    tmp_path, arguments, ['config.num_frames', '5000 in short, 7000 in long']
  )
  arguments.append('--config.num_frames=6000')
  assert sweep.main(['sweep', *arguments, '--dry_run']) == 0


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


def test_kubernetes_keeps_the_variants_of_a_game_apart():
  names = ('mg', 'bmg', 'BMG', 'bmg-l4', 'bmg.l4', 'a-very-long-name' * 9)
  grid = cells.make_cells(
    '/runs', ('pong', 'battle_zone'), (1, 2), 'kubernetes', names
  )
  assert grid[1].workdir == '/runs/bmg-pong-1'
  runs = {dns.run_name(cell.workdir) for cell in grid}
  # What a cell's folder is called is what its run is called.
  assert runs == {cell.workdir.removeprefix('/runs/') for cell in grid}
  assert len(runs) == len(grid)
  assert all(map(dns.is_valid_name, runs))


def _dry_run(capsys, *arguments):
  """Returns how a sweep would call its cells, and their commands."""
  assert sweep.main(['sweep', '--dry_run', *arguments]) == 0
  _, *lines = capsys.readouterr().out.splitlines()
  names = [line.removeprefix('# ').partition(':')[0] for line in lines[::2]]
  return names, [shlex.split(line) for line in lines[1::2]]


def _parse(command):
  """Returns the configuration and the folder that a cell's command means."""
  assert command[1:3] == ['-m', 'bmg.launch.commands.train']
  flag_values = cli.flags.FlagValues()
  for name in ('workdir', 'launcher'):
    cli.flags.DEFINE_string(name, None, '', flag_values=flag_values)
  config = cli.parse_with_config(flag_values, command[2:])
  return config, flag_values['workdir'].value


def test_each_variant_of_the_recipe_is_trained_with_all_overrides(capsys):
  names, commands = _dry_run(
    capsys,
    *('--config', str(processes.VARIANTS_RECIPE), '--variants=bmg-l4,none'),
    *('--games=pong,boxing', '--seeds=4,7', '--config.num_frames=5000'),
    *('--workdir=/study', '--config.optimizer.learning_rate=1'),
  )
  # Every game by every variant, before any has its second seed.
  assert names == [
    f'{variant}/{game}-{seed}'
    for seed in (4, 7)
    for game in ('pong', 'boxing')
    for variant in ('bmg-l4', 'none')
  ]
  for name, command in zip(names, commands, strict=True):
    config, workdir = _parse(command)
    assert workdir == f'/study/{name}'
    variant = name.partition('/')[0]
    meta = (config.meta.mode, config.meta.bootstrap_length)
    assert meta == {'bmg-l4': ('bmg', 4), 'none': ('none', 1)}[variant]
    assert name == f'{variant}/{config.env.game}-{config.seed}'
    assert config.num_frames == 5000
    assert config.optimizer.learning_rate == 1.0


def test_all_variants_are_those_of_the_recipe_in_its_order(capsys):
  names, commands = _dry_run(
    capsys, _VARIANTS_RECIPE, '--variants=all', '--games=pong'
  )
  assert names == ['none/pong-1', 'mg/pong-1', 'bmg/pong-1', 'bmg-l4/pong-1']
  _, workdir = _parse(commands[0])
  assert workdir == 'runs/sweep-variants_recipe/none/pong-1'


def test_a_recipe_with_variants_is_swept_as_it_is_without_the_flag(capsys):
  names, (command,) = _dry_run(capsys, _VARIANTS_RECIPE, '--games=pong')
  config, workdir = _parse(command)
  assert names == ['pong-1']
  assert workdir == 'runs/sweep-variants_recipe/pong-1'
  assert config.meta.mode == 'bmg'


def test_a_sweep_of_one_variant_has_a_folder_of_its_own(capsys):
  _, (command,) = _dry_run(capsys, f'{_VARIANTS_RECIPE}:mg', '--games=pong')
  config, workdir = _parse(command)
  assert workdir == 'runs/sweep-variants_recipe-mg/pong-1'
  assert config.meta.mode == 'mg'


def test_a_dry_run_prints_commands_that_train_would_understand(
  tmp_path, capsys
):
  workdir = tmp_path / 'a sweep'
  _, commands = _dry_run(
    capsys,
    *('--games=pong,boxing', '--seeds=4,7', f'--workdir={workdir}', _RECIPE),
    *('--config.num_frames', '5000', '--config.agent.head_hidden=(32,)'),
    *('--noconfig.replay.checkpoint', '--config.meta.mode=mg'),
    '--config.optimizer.learning_rate=1e-4',
  )
  assert not workdir.exists()
  for command, (game, seed) in zip(
    commands,
    [('pong', 4), ('boxing', 4), ('pong', 7), ('boxing', 7)],
    strict=True,
  ):
    config, cell_workdir = _parse(command)
    assert (config.env.game, config.seed) == (game, seed)
    assert config.num_frames == 5000
    assert config.agent.head_hidden == (32,)
    assert config.meta.mode == 'mg'
    assert config.optimizer.learning_rate == 1e-4
    assert cell_workdir == f'{workdir}/{game}-{seed}'
