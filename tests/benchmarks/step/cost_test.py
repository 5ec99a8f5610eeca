import json
import pathlib
import subprocess
import sys

import pytest

from bmg.benchmarks.step import cost
from bmg.configs import base, schema
from bmg.launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, '-m', 'bmg.benchmarks.step.cost')
SMALL = (
  '--config=configs/atari_local.py',
  '--config.env.game=boxing',
  '--config.actors.envs_per_actor=2',
  '--config.actors.unroll_length=10',
)


def make_cost(flops, seconds, plain_seconds, **fields):
  values = {'updates': 1, 'temporary_bytes': 100, 'compile_seconds': 2.0}
  return cost.Cost(
    flops=flops,
    seconds=seconds,
    plain_seconds=plain_seconds,
    **(values | fields),
  )


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """Runs the command; what it printed and what it saved."""
  output = tmp_path_factory.mktemp('cost') / 'results' / 'cost.json'
  variants = '--variants=bmg-L1,bmg-L2,bmg-L4,bmg-K2,naive-K2'
  done = subprocess.run(
    [*COMMAND, *SMALL, '--repeats=2', f'--out={output}', variants],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=280,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout, json.loads(output.read_text())['costs']


def test_ratios_are_per_update_of_the_agent_and_of_the_same_moment():
  plain = make_cost(10.0, [1.0, 2.0, 9.0], [1.0, 2.0, 9.0])
  # The machine was three times as slow in the second repeat.
  four_updates = make_cost(
    100.0,
    [8.0, 24.0, 9.0],
    [1.0, 3.0, 1.0],
    updates=4,
    temporary_bytes=250,
    compile_seconds=5.0,
  )
  assert four_updates.ratios(plain) == {
    'flops': 2.5,
    'time': 2.0,
    'memory': 2.5,
    'compile': 2.5,
  }
  assert make_cost(1.0, [], []).ratios(plain)['time'] is None


def test_variants_have_batches_of_one_size_and_room_for_them():
  config = schema.from_config_dict(base.get_config())
  for name in cost.VARIANTS:
    variant = cost.configure(config, name)
    assert variant.meta.bootstrap_batch == config.replay.batch_size
  assert cost.configure(config, 'none').meta.mode == 'none'
  assert cost.configure(config, 'bmg-K4').meta.updates_per_step == 4
  assert cost.configure(config, 'bmg-online-L4').meta.updates_per_step == 4
  assert cost.configure(config, 'bmg-L8').meta.num_bootstrap_batches == 7


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--variants=bmg-L3', "'bmg-L3' is not a variant; known: mg, bmg-L1"),
    ('--repeats=-1', 'repeats'),
  ],
)
def test_bad_command_lines_are_refused(argument, message):
  with pytest.raises(cli.UsageError, match=message):
    cost.main(['cost', *SMALL, argument])


def test_nothing_is_computed_twice_and_memory_is_flat(measured):
  printed, costs = measured
  ratios = {name: each['ratios'] for name, each in costs.items()}
  assert ratios['none']['flops'] == ratios['none']['memory'] == 1.0
  flops = {name: each['flops'] for name, each in ratios.items()}
  assert flops['bmg-L1'] <= 3.6
  # One more forward pass than an update: at L = 1, the target's plain step
  # shares that of the matching loss, as both are at x^(K) on the same batch.
  assert flops['bmg-L2'] - flops['bmg-L1'] <= 1.45
  assert (flops['bmg-L4'] - flops['bmg-L2']) / 2 <= 1.05
  memory = {name: each['memory'] for name, each in ratios.items()}
  assert memory['bmg-L4'] <= 1.05 * memory['bmg-L1']
  for each in costs.values():
    assert len(each['seconds']) == len(each['plain_seconds']) == 2
    assert min(each['seconds']) > 0
  for words in ('bmg-L1', 'L = 2 to 4', 'GFLOP'):
    assert words in printed


def test_two_inner_updates_need_about_half_of_the_naive_memory(measured):
  _, costs = measured
  memory = {name: each['temporary_bytes'] for name, each in costs.items()}
  # At K = 4, a third (docs/results).
  assert memory['bmg-K2'] <= 0.55 * memory['naive-K2']
  # Both are the same meta-gradient, in float32.
  assert 0 <= costs['naive-K2']['difference'] < 1e-4
