import json

import pytest

from bmg.launch.run import files
from bmg.launch.sweep import progress


def test_progress_of_a_run(tmp_path):
  workdir = str(tmp_path)
  assert progress.read(workdir, 'pong', 1000) == progress.Progress()
  row = {'num_frames': 900, 'episode_return': None, 'time_left': 3.0}
  (tmp_path / 'learner.jsonl').write_text(json.dumps(row) + '\n')
  so_far = progress.read(workdir, 'pong', 1000)
  assert (so_far.num_frames, so_far.episode_return) == (900, None)
  assert not so_far.learned
  row = {'num_frames': 1000, 'episode_return': 14.6}
  (tmp_path / 'learner.jsonl').write_text(json.dumps(row) + '\n')
  files.write_json(files.finished(workdir), {'num_frames': 1000})
  so_far = progress.read(workdir, 'pong', 1000)
  assert so_far.human_normalized == pytest.approx(1.0)
  assert (so_far.learned, so_far.evaluated) == (True, False)
  (tmp_path / 'evaluation.jsonl').write_text('{"num_frames": 1000}\n')
  assert progress.read(workdir, 'pong', 1000).evaluated
  # More is asked of it now.
  assert not progress.read(workdir, 'pong', 1001).learned


def test_the_failure_that_others_followed_is_the_reason(tmp_path):
  for name, status, at in (
    ('actor-0', 1, 11.0),
    ('learner-0', 3, 12.0),
    ('replay-0', 1, 9.0),
  ):
    files.write_json(
      tmp_path / f'state/{name}.json',
      {
        'name': name,
        'state': 'failed',
        'last_exit': f'exit status {status}',
        'last_error': 'oh',
        'time': at,
      },
    )
  failure = progress.node_failure(str(tmp_path), since=10.0)
  assert failure == ('learner-0: oh (exit status 3)', True)
  assert progress.node_failure(str(tmp_path), since=13.0) is None
