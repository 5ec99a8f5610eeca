import io
import json

import pytest
from rich.console import Console

from configs import schema
from launch import plan, run_files, status
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
  'meta/grad_norm': 3e-5,
  'meta/matching_loss': 2e-4,
  'meta/kl': 1e-4,
  'time_left': 3723.0,
}


def _display(workdir, width=400, **kwargs):
  output = io.StringIO()
  console = Console(file=output, width=width, **kwargs)
  times = iter(range(0, 1000, 10))
  display = status.Display(
    processes.small_config(), str(workdir), console, lambda: next(times)
  )
  return display, output


def _write(path, *rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def test_the_learners_row_is_shown_whole(tmp_path):
  lines = status.training_lines(_ROW, total_frames=10_000_000)
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
    'discount 0.9875',
    'entropy_weight 0.0123',
    'meta grad 3e-05',
    'matching 0.0002',
    'KL 0.0001',
  ):
    assert shown in text


def test_without_meta_learning_there_is_no_line_for_it():
  row = {k: v for k, v in _ROW.items() if not k.startswith('meta/')}
  assert len(status.training_lines(row, 10_000_000)) == 3


@pytest.mark.parametrize('value', [None, float('nan')])
def test_a_value_that_is_not_there_yet_is_a_dash(value):
  row = {**_ROW, 'episode_return': value}
  assert 'return -  ' in status.training_lines(row, 10_000_000)[0]


def test_the_last_whole_row_counts(tmp_path):
  path = tmp_path / 'learner.jsonl'
  assert status.last_row(path) is None
  path.write_text('{"num_frames": 1}\n{"num_frames": 2}\n{"num_fr')
  assert status.last_row(path) == {'num_frames': 2}


def test_before_the_first_row_the_starting_nodes_are_shown(tmp_path):
  for node, state in zip(
    plan.nodes(schema.to_dict(processes.small_config())),
    ('running', 'starting', 'starting', 'waiting'),
    strict=True,
  ):
    run_files.write_json(run_files.state(str(tmp_path), node), {'state': state})
  display, output = _display(tmp_path)
  display.update()
  assert output.getvalue().split('  ') == [
    'nodes 1/4 up',
    'starting: learner-0 actor-0',
    'waiting: evaluator-0\n',
  ]


def test_a_restarted_node_is_named_with_its_error():
  states = {
    plan.NodeId('actor', 3): {
      'state': 'restarting',
      'restarts': 2,
      'last_error': 'OSError: no',
    }
  }
  (line,) = status.health_lines(states)
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
  display = status.Display(processes.small_config(), str(tmp_path), console)
  display.say('hello')
