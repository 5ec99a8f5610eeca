import subprocess
import sys

from bmg.configs import schema
from bmg.launch.program import address_book, addresses, program
from bmg.launch.run import topology
from tests.launch import processes


def _shape(lp_program):
  return {
    label: [
      sorted(address.name for address in node.addresses) for node in group
    ]
    for label, group in lp_program.groups.items()
  }


def _spread_config():
  config = schema.to_dict(processes.small_config(num_actors=3))
  config['replay']['num_servers'] = 2
  config['learner']['num_hosts'] = 2
  config['cluster'] |= {'actors_per_task': 2, 'relays': True}
  return schema.from_config_dict(config)


def test_equal_configurations_give_equal_programs(tmp_path):
  config = processes.small_config()
  first = _shape(program.make_program(config, str(tmp_path)))
  second = _shape(program.make_program(config, str(tmp_path)))
  assert first == second
  assert not list(tmp_path.iterdir())


def test_the_plan_says_what_the_program_has(tmp_path):
  config = _spread_config()
  shape = _shape(program.make_program(config, str(tmp_path)))
  assert {
    label: [
      sorted(topology.addresses(schema.to_dict(config), node))
      for node in topology.nodes(schema.to_dict(config))
      if node.group == label
    ]
    for label in topology.GROUPS
  } == shape
  counts = {label: len(group) for label, group in shape.items()}
  assert counts == {
    'replay': 2,
    'learner': 2,
    'relay': 2,
    'actor': 3,
    'evaluator': 1,
  }


def test_every_server_has_an_address_once_bound(tmp_path):
  config = processes.small_config()
  address_book.publish_local(str(tmp_path), schema.to_dict(config))
  lp_program = program.make_program(config, str(tmp_path))
  addresses.bind(lp_program, config, str(tmp_path))
  resolved = [
    address.resolve()
    for node in lp_program.get_all_nodes()
    for address in node.addresses
  ]
  assert len(set(resolved)) == 2


def test_pods_work_their_addresses_out(tmp_path, monkeypatch):
  monkeypatch.setenv('BMG_ADDRESSES', 'dns')
  monkeypatch.setenv('BMG_RUN_NAME', 'pong')
  config = _spread_config()
  lp_program = program.make_program(config, str(tmp_path))
  addresses.bind(lp_program, config, str(tmp_path))
  resolved = {
    address.resolve()
    for node in lp_program.get_all_nodes()
    for address in node.addresses
  }
  assert resolved == {
    'pong-replay-0-0.pong:20000',
    'pong-replay-0-1.pong:20000',
    # Relays serve their own pod.
    'localhost:20002',
    'pong-learner-0-0.pong:20001',
    'pong-learner-0-1.pong:20001',
    # Where the learner's hosts meet.
    'pong-learner-0-0.pong:20005',
  }


def test_launcher_and_program_need_neither_jax_nor_tensorflow():
  code = """
import sys
from bmg.launch.program import program
from bmg.launch.commands import train, evaluate
from tests.launch import processes
program.make_program(processes.small_config(), 'unused')
heavy = {'jax', 'tensorflow', 'reverb', 'haiku'} & set(sys.modules)
assert not heavy, heavy
"""
  subprocess.run([sys.executable, '-c', code], check=True, cwd=processes.ROOT)
