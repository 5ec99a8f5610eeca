import math

import numpy as np
import pandas as pd
import pytest

from bmg.evaluation import records
from bmg.evaluation.report import collect, scores
from tests.evaluation.report import fake_runs


def _rows(*rows):
  return pd.DataFrame(rows, columns=['num_frames', 'episode_return'])


def _scored(tmp_path, **run):
  folder = fake_runs.make(tmp_path / 'a', **run)
  return scores.score_run(collect.collect([folder]).runs[0])


def test_the_window_is_the_papers_and_scales_with_shorter_runs():
  assert scores.window(200_000_000) == (190_000_000, 200_000_000)
  assert scores.window(400_000_000) == (190_000_000, 200_000_000)
  assert scores.window(1_000_000) == (950_000, 1_000_000)


def test_the_mean_is_over_the_window_alone():
  rows = _rows((90, 100.0), (91, 1.0), (95, math.nan), (100, 4.0), (101, 70.0))
  assert scores.window_mean(rows, 90, 100) == 2.5
  assert math.isnan(scores.window_mean(rows, 91, 99))
  assert math.isnan(scores.window_mean(None, 0, 100))


def test_a_whole_run_is_scored_by_the_window(tmp_path):
  # The last update takes a run a little past the frames it was asked for.
  returns = ((900, 50.0), (950, 40.0), (960, 1.0), (990, math.nan), (1008, 2.0))
  score = _scored(tmp_path, returns=returns)
  assert score.value == 1.5
  assert (score.start, score.end) == (950, 1000)
  assert score.finished


def test_a_longer_run_is_scored_at_200m_frames(tmp_path):
  returns = ((190e6, 9.0), (195e6, 1.0), (200e6, 2.0), (210e6, 70.0))
  returns = tuple((int(frames), value) for frames, value in returns)
  score = _scored(tmp_path, num_frames=400_000_000, returns=returns)
  assert score.value == 1.5
  assert score.finished


def test_an_unfinished_run_is_scored_by_what_it_has_done(tmp_path):
  returns = ((300, 50.0), (390, 1.0), (400, 3.0))
  score = _scored(tmp_path, returns=returns)
  assert score.value == 2.0
  assert (score.start, score.end) == (380, 400)
  assert not score.finished


def test_a_resumed_run_counts_each_row_once(tmp_path):
  fake_runs.make(tmp_path / 'a', evaluations=())
  folder = str(tmp_path / 'a')
  first = records.RunRecords(folder, 'learner', None)
  for frames in (900, 960, 980):
    first.write({'num_frames': frames, 'episode_return': 100.0})
  first.close()
  second = records.RunRecords(folder, 'learner', 900)
  for frames in (960, 980, 1000):
    second.write({'num_frames': frames, 'episode_return': float(frames)})
  second.close()
  run = collect.collect([folder]).runs[0]
  assert len(run.learner) == 4
  assert scores.score_run(run).value == 980.0


def test_finished_runs_of_a_game_count_alone_if_there_are_any(tmp_path):
  sweep = str(tmp_path)
  fake_runs.make(tmp_path / '1', seed=1)  # 2.0
  fake_runs.make(tmp_path / '2', seed=2, returns=((990, 5.0), (1000, 7.0)))
  fake_runs.make(tmp_path / '3', seed=3, returns=((400, 99.0),))
  fake_runs.make(tmp_path / '4', seed=4, returns=((1000, math.nan),))
  fake_runs.make(tmp_path / '5', 'boxing', returns=((400, 99.0),))
  pong, boxing = scores.score_games(collect.collect([sweep]).runs)
  assert (pong.game, len(pong.runs), pong.finished) == ('pong', 4, True)
  assert pong.values.tolist() == [2.0, 6.0]
  assert pong.mean == 4.0
  assert not pong.full_length
  assert (boxing.game, boxing.mean, boxing.finished) == ('boxing', 99.0, False)


def test_the_last_evaluations_are_averaged(tmp_path):
  fake_runs.make(tmp_path / '1', evaluations=((0, 50.0), (800, 8.0)))
  fake_runs.make(tmp_path / '2', seed=2, evaluations=((1000, 10.0),))
  fake_runs.make(tmp_path / '3', seed=3, evaluations=())
  (game,) = scores.score_games(collect.collect([str(tmp_path)]).runs)
  assert game.evaluation == scores.Evaluation(9.0, num_runs=2, num_frames=800)


def test_scores_are_normalised_by_the_games_reference():
  values = scores.human_normalized('pong', np.array([-20.7, 14.6]))
  assert values == pytest.approx([0.0, 1.0])
  assert scores.human_normalized('tetris', np.array([1.0])) is None
