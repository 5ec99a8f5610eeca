import subprocess
import sys

import pytest

from bmg.configs import schema
from bmg.launch.kubernetes import dns
from bmg.launch.run import topology
from tests.launch import processes


def _config(**changes):
  config = schema.to_dict(processes.small_config())
  config['actors']['num_actors'] = changes.get('num_actors', 1)
  config['cluster']['actors_per_task'] = changes.get('actors_per_task', 1)
  return config


def test_servers_have_fixed_addresses_of_their_own():
  config = _config()
  assert (
    dns.address(config, 'replay', 0, 'pong') == 'pong-replay-0-0.pong:20000'
  )
  assert (
    dns.address(config, 'learner', 0, 'pong') == 'pong-learner-0-0.pong:20001'
  )


@pytest.mark.parametrize(
  ('label', 'index'),
  [('actor', 0), ('evaluator', 0), ('learner', 1), ('replay', -1)],
)
def test_what_is_no_server_has_no_address(label, index):
  with pytest.raises(ValueError, match=label):
    dns.address(_config(), label, index, 'pong')


@pytest.mark.parametrize(
  ('num_actors', 'actors_per_task', 'pods'),
  [(1, 1, 1), (5, 1, 5), (5, 2, 3), (4, 2, 2), (1, 8, 1)],
)
def test_actors_share_pods(num_actors, actors_per_task, pods):
  config = _config(num_actors=num_actors, actors_per_task=actors_per_task)
  assert topology.num_tasks(config, topology.ACTOR) == pods
  assert topology.num_tasks(config, topology.LEARNER) == 1


@pytest.mark.parametrize('name', ['breakout', 'pong-bmg-1', 'a', 'x' * 39])
def test_a_name_that_will_do_is_kept(name):
  assert dns.run_name(f'runs/{name}/') == name


@pytest.mark.parametrize(
  'given',
  [
    'Pong',
    'pong_bmg',
    '3games',
    '-pong',
    'pong-',
    '...',
    'Pöng 1',
    'x' * 40,
    f'{"y" * 29}-{"z" * 60}',
  ],
)
def test_other_names_are_made_to_do(given):
  name = dns.run_name(f'/runs/{given}')
  assert dns.is_valid_name(name)
  assert name == dns.run_name(f'/elsewhere/{given}')
  for group in topology.GROUPS:
    assert len(f'{name}-{group}-0-99999-abcde') <= 63


def test_the_working_directory_has_a_name_too(tmp_path, monkeypatch):
  (tmp_path / 'pong').mkdir()
  monkeypatch.chdir(tmp_path / 'pong')
  assert dns.run_name('.') == 'pong'


def test_different_folders_keep_different_names():
  names = ['a_b', 'a.b', 'A-b', 'a-b', 'x' * 40, 'x' * 41, '1', '_1']
  assert len({dns.run_name(name) for name in names}) == len(names)


def test_names_that_jobset_would_refuse_are_not_valid():
  for name in ('', '1a', 'a-', '-a', 'A', 'a.b', 'a_b', 'x' * 40, 'a\n'):
    assert not dns.is_valid_name(name)


def test_it_needs_the_standard_library_alone():
  subprocess.run(
    [sys.executable, '-S', '-c', 'import bmg.launch.kubernetes.dns'],
    cwd=processes.ROOT,
    check=True,
    timeout=60,
  )
