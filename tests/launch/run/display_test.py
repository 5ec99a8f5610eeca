import io
import json

import pytest
from rich.console import Console

from bmg.configs import schema
from bmg.launch.run import display as display_lib
from bmg.launch.run import files, topology
from tests.launch import processes

_ROW = {
  'num_frames': 2_500_000,
  'num_updates': 1000,
  'seconds': 600.0,
  'frames_per_second': 4321.0,
  'frames_per_second_long': 4000.0,
  'episode_return': -12.25,
  'policy_lag_mean': 1.5,
  'policy_lag_max': 7,
  'replay_online': 12,
  'replay_size': 9876,
  'wait_data': 0.25,
  'wait_insert': 0.5,
  'loss/total': 0.1,
  'loss/policy': 0.2,
  'loss/value': 0.3,
  'loss/entropy': -1.7,
  'grad_norm': 0.9,
  'meta/discount': 0.9875,
  'meta/entropy_weight': 0.0123,
  'meta/discount_aux1': 0.8765,
  'travel/discount': 0.4512,
  'travel/entropy_weight': -0.0012,
  'travel/discount_aux1': 0.0001,
  'step/discount': 0.618,
  'step/entropy_weight': 0.000123,
  'step/discount_aux1': 1e-6,
  'meta/grad_norm': 3e-5,
  'meta/matching_loss': 2e-4,
  'meta/kl': 1e-4,
  'time_left': 3723.0,
}


def _display(workdir, width=400, **kwargs):
  output = io.StringIO()
  console = Console(file=output, width=width, **kwargs)
  times = iter(range(0, 1000, 10))
  display = display_lib.Display(
    processes.small_config(), str(workdir), console, lambda: next(times)
  )
  return display, output


def _write(path, *rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def test_the_learners_row_is_shown_whole(tmp_path):
  lines = display_lib.training_lines(_ROW, total_frames=10_000_000)
  lines += display_lib.live_meta_lines(_ROW)
  assert max(map(len, lines)) <= 100
  text = ' '.join(lines)
  for shown in (
    '2.5M frames (25.0 %)',
    '4.32k/s (long 4k/s)',
    'return -12.25',
    'left 1h02m',
    'lag 1.5 max 7',
    'replay 9.88k queue 12',
    'learner 25 % actor 50 %',
    'loss 0.1 (policy 0.2 value 0.3 entropy -1.7)',
    'grad 0.9',
    'discount 0.9875 (+0.45, step 62 %)',
    'entropy_weight 0.0123 (-0.00, step 0.01 %)',
    'hardly moving: entropy_weight (meta.epsilon',
    'meta grad 3e-05',
    'matching 0.0002',
    'KL 0.0001',
  ):
    assert shown in text


def _learned(names, travel, share, num_updates=1000):
  row = {'num_updates': num_updates}
  for name in names:
    row |= {f'meta/{name}': 0.12345, f'travel/{name}': travel}
    row[f'step/{name}'] = share
  return row


def test_many_meta_parameters_stand_below_each_other():
  names = ['discount', 'trace_lambda', 'leak', 'policy_weight', 'value_weight']
  heading, *lines = display_lib.live_meta_lines(_learned(names, 12.345, 1.0))
  assert max(map(len, [heading, *lines])) <= 100
  assert len(lines) == 3
  starts = [
    line.index(f'{name} 0.1235 (+12.35, step 100 %)')
    for name, line in zip(names, (x for x in lines for _ in '12'), strict=False)
  ]
  assert starts == [starts[0], starts[1]] * 2 + [starts[0]]


def test_what_hardly_moves_is_named_after_a_while():
  names = ['discount', 'leak']
  dead = _learned(names, 0.001, 0.001)
  (clause,) = [x for x in display_lib.live_meta_lines(dead) if 'hardly' in x]
  assert 'all of them' in clause
  one = {**dead, 'step/leak': 0.5}
  (clause,) = [x for x in display_lib.live_meta_lines(one) if 'hardly' in x]
  assert 'discount' in clause
  assert 'leak' not in clause
  young = _learned(names, 0.001, 0.001, num_updates=10)
  assert 'hardly' not in ' '.join(display_lib.live_meta_lines(young))


def test_without_travel_there_are_values_alone():
  row = {'num_updates': 1000, 'meta/discount': 0.99, 'meta/leak': 1.0}
  assert display_lib.live_meta_lines(row) == [
    'meta-parameters:',
    '  discount 0.99  leak 1',
  ]
  assert display_lib.short_meta_lines(row) == ['discount 0.99', 'leak 1']


def test_without_meta_learning_there_is_no_line_for_it():
  row = {'num_updates': 1000, 'loss/total': 0.1}
  assert display_lib.live_meta_lines(row) == []
  assert display_lib.short_meta_lines(row) == []


@pytest.mark.parametrize('value', [None, float('nan')])
def test_a_value_that_is_not_there_yet_is_a_dash(value):
  row = {**_ROW, 'episode_return': value}
  assert 'return -  ' in display_lib.training_lines(row, 10_000_000)[0]


def test_the_last_whole_row_counts(tmp_path):
  path = tmp_path / 'learner.jsonl'
  assert display_lib.last_row(path) is None
  path.write_text('{"num_frames": 1}\n{"num_frames": 2}\n{"num_fr')
  assert display_lib.last_row(path) == {'num_frames': 2}


def test_before_the_first_row_the_starting_nodes_are_shown(tmp_path):
  for node, state in zip(
    topology.nodes(schema.to_dict(processes.small_config())),
    ('running', 'starting', 'starting', 'waiting'),
    strict=True,
  ):
    files.write_json(files.state(str(tmp_path), node), {'state': state})
  display, output = _display(tmp_path)
  display.update()
  assert output.getvalue().split('  ') == [
    'nodes 1/4 up',
    'starting: learner-0 actor-0',
    'waiting: evaluator-0\n',
  ]


def test_a_restarted_node_is_named_with_its_error():
  states = {
    topology.NodeId('actor', 3): {
      'state': 'restarting',
      'restarts': 2,
      'last_error': 'OSError: no',
    }
  }
  (line,) = display_lib.health_lines(states)
  assert 'restarting: actor-3' in line
  assert 'actor-3 restarted 2x (OSError: no)' in line


def test_without_a_terminal_one_line_is_printed_per_change(tmp_path):
  display, output = _display(tmp_path)
  _write(tmp_path / 'learner.jsonl', _ROW)
  _write(
    tmp_path / 'evaluation.jsonl',
    {
      'num_frames': 2_000_000,
      'mean_return': -10.5,
      'std_return': 1.5,
      'human_normalized_score': 0.3,
    },
  )
  display.update()
  display.update()
  (line,) = output.getvalue().splitlines()
  assert 'evaluation at 2M: -10.5 +- 1.5' in line
  assert '30 %' in line
  assert (
    'meta-parameters (logits moved):  discount 0.9875 (+0.45)  '
    'entropy_weight 0.0123 (-0.00)  meta grad 3e-05'
  ) in line
  _write(tmp_path / 'learner.jsonl', _ROW, {**_ROW, 'num_frames': 3_000_000})
  display.update()
  assert len(output.getvalue().splitlines()) == 2


def test_a_terminal_is_redrawn(tmp_path):
  display, output = _display(tmp_path, force_terminal=True)
  _write(tmp_path / 'learner.jsonl', _ROW)
  with display:
    display.update()
    _write(tmp_path / 'learner.jsonl', {**_ROW, 'num_frames': 3_000_000})
    display.update()
    display.say('Stopped.')
  text = output.getvalue()
  assert '2.5M frames' in text
  assert 'discount 0.9875 (+0.45, step 62 %)' in text
  assert '3M frames' in text
  assert 'Stopped.' in text


def test_a_narrow_terminal_shows_every_value(tmp_path):
  display, output = _display(tmp_path, width=40, force_terminal=True)
  _write(tmp_path / 'learner.jsonl', _ROW)
  with display:
    display.update()
  assert 'KL 0.0001' in ' '.join(output.getvalue().split())


def test_a_closed_terminal_does_not_end_the_run(tmp_path):
  class Closed(io.StringIO):
    def write(self, text):
      raise OSError('gone')

  console = Console(file=Closed(), width=80)
  display = display_lib.Display(
    processes.small_config(), str(tmp_path), console
  )
  display.say('hello')
