import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from bmg.evaluation import records


def _csv_rows(folder):
  with open(folder / 'learner.csv', newline='') as file:
    return list(csv.DictReader(file))


def _json_rows(folder):
  with open(folder / 'learner.jsonl') as file:
    return [json.loads(line) for line in file]


def _frames(rows):
  return [int(row['num_frames']) for row in rows]


def _events(folder, tag):
  accumulator = event_accumulator.EventAccumulator(
    str(folder / 'tensorboard' / 'learner')
  )
  accumulator.Reload()
  return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def _write(folder, resume_at, frames, **columns):
  run_records = records.RunRecords(str(folder), 'learner', resume_at)
  for num_frames in frames:
    run_records.write({'num_frames': num_frames, **columns})
  run_records.close()


def test_a_row_is_in_all_three_places(tmp_path):
  _write(tmp_path, None, [80], loss=0.5, game='pong')
  assert _csv_rows(tmp_path) == [
    {'num_frames': '80', 'loss': '0.5', 'game': 'pong'}
  ]
  assert _json_rows(tmp_path) == [
    {'num_frames': 80, 'loss': 0.5, 'game': 'pong'}
  ]
  assert _events(tmp_path, 'loss') == [(80, 0.5)]


def test_a_resumed_run_has_neither_gap_nor_repeat(tmp_path):
  _write(tmp_path, None, [10, 20, 30, 40], loss=1.0)
  _write(tmp_path, 20, [30, 40, 50], loss=2.0)
  expected = [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)]
  for rows in (_csv_rows(tmp_path), _json_rows(tmp_path)):
    assert [(int(r['num_frames']), float(r['loss'])) for r in rows] == expected
  assert _events(tmp_path, 'loss') == expected


def test_none_starts_afresh_and_zero_keeps_frame_zero(tmp_path):
  _write(tmp_path, None, [0, 10], loss=1.0)
  _write(tmp_path, 0, [], loss=1.0)
  assert _frames(_csv_rows(tmp_path)) == [0]
  _write(tmp_path, None, [10], loss=1.0)
  assert _frames(_csv_rows(tmp_path)) == [10]
  assert _frames(_json_rows(tmp_path)) == [10]


def test_not_a_number_is_empty_in_csv_and_null_in_json(tmp_path):
  _write(tmp_path, None, [10], loss=np.float32(np.nan), norm=float('inf'))
  assert _csv_rows(tmp_path) == [{'num_frames': '10', 'loss': '', 'norm': ''}]
  assert _json_rows(tmp_path) == [
    {'num_frames': 10, 'loss': None, 'norm': None}
  ]


def test_columns_that_appear_later_join_the_old_ones(tmp_path):
  run_records = records.RunRecords(str(tmp_path), 'learner', None)
  run_records.write({'num_frames': 10, 'loss': 1})
  run_records.write({'num_frames': 20, 'norm': 2})
  run_records.close()
  _write(tmp_path, 20, [30], score=3)
  assert _csv_rows(tmp_path) == [
    {'num_frames': '10', 'loss': '1', 'norm': '', 'score': ''},
    {'num_frames': '20', 'loss': '', 'norm': '2', 'score': ''},
    {'num_frames': '30', 'loss': '', 'norm': '', 'score': '3'},
  ]


def test_a_torn_last_line_is_dropped(tmp_path):
  _write(tmp_path, None, [10, 20], loss=1.0)
  for name in ('learner.csv', 'learner.jsonl'):
    os.truncate(tmp_path / name, os.path.getsize(tmp_path / name) - 3)
  _write(tmp_path, 1000, [20], loss=3.0)
  assert _frames(_csv_rows(tmp_path)) == [10, 20]
  assert _json_rows(tmp_path)[-1] == {'num_frames': 20, 'loss': 3.0}


def test_a_row_without_frames_is_refused(tmp_path):
  run_records = records.RunRecords(str(tmp_path), 'learner', None)
  with pytest.raises(ValueError, match='num_frames'):
    run_records.write({'loss': 1.0})
  with pytest.raises(ValueError, match='num_frames'):
    run_records.write({'num_frames': float('nan')})


def test_a_killed_process_leaves_whole_rows(tmp_path):
  code = (
    'import sys; from bmg.evaluation import records\n'
    f'r = records.RunRecords({str(tmp_path)!r}, "learner", None)\n'
    'for i in range(10**9):\n'
    '  r.write({"num_frames": i, "loss": i / 3})\n'
    '  if i == 200: print("going", flush=True)\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE
  )
  process.stdout.readline()
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()
  _write(tmp_path, 10**9, [10**9], loss=0.0)
  frames = _frames(_json_rows(tmp_path))
  assert len(frames) > 200
  assert frames == [*range(len(frames) - 1), 10**9]
  assert _frames(_csv_rows(tmp_path)) == frames


_FULL_DISK = """
import resource, signal
from bmg.evaluation import records

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Then a write fails as EFBIG.
r = records.RunRecords({folder!r}, 'learner', None)
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
for i in range(400):
  if i == 100:
    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, limit[1]))
  if i == 300:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  r.write({{'num_frames': i, 'loss': 1.0}})
r.close()
"""


def test_a_full_disk_does_not_stop_the_run(tmp_path):
  """Stands in for a full disk: files may not grow past a limit for a time."""
  done = subprocess.run(
    [sys.executable, '-c', _FULL_DISK.format(folder=str(tmp_path))],
    timeout=60,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr.count('Cannot write records') == 1
  frames = _frames(_json_rows(tmp_path))
  # Rows before and after are there, and none was cut short.
  assert frames[-100:] == list(range(300, 400))
  assert 100 < len(frames) < 400
  assert frames == sorted(frames)
  assert _frames(_csv_rows(tmp_path))[-100:] == frames[-100:]
  steps = [step for step, _ in _events(tmp_path, 'loss')]
  assert steps[-100:] == list(range(300, 400))
  assert steps == sorted(set(steps))


def test_records_do_not_import_tensorflow():
  code = (
    'import sys; from bmg.evaluation import records\n'
    'sys.exit(any(m in sys.modules for m in ("tensorflow", "torch", "jax")))'
  )
  assert (
    subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
  )
