import numpy as np
import pytest

from bmg.evaluation import atari_scores
from bmg.evaluation.report import aggregate, published, results


def _scores(**games):
  return {game: np.array(values, float) for game, values in games.items()}


def _statistics(scores, repetitions=200):
  return aggregate.statistics(scores, repetitions)


def test_statistics_by_hand():
  # Means over seeds: 1, 2, 6, 0.5. Runs in order: 0 .5 .5 1 2 3 5 7, whose
  # middle half is .5 1 2 3.
  found = _statistics(
    _scores(a=[0.0, 2.0], b=[3.0, 1.0], c=[5.0, 7.0], d=[0.5, 0.5])
  )
  assert found['median'].value == 1.5
  assert found['mean'].value == pytest.approx(9.5 / 4)
  assert found['iqm'].value == pytest.approx((1 + 2 + 3 + 0.5) / 4)
  # Missing to a human: 1 + .5 + .5 of eight runs.
  assert found['optimality_gap'].value == pytest.approx(2.0 / 8)


def test_games_weigh_the_same_whatever_their_number_of_seeds():
  # As if a's one run, and b's two, were there six and three times.
  uneven = _scores(a=[0.0], b=[1.0, 3.0], c=[4.0, 5.0, 9.0])
  even = _scores(a=[0.0] * 6, b=[1.0, 3.0] * 3, c=[4.0, 5.0, 9.0] * 2)
  for name, estimate in _statistics(uneven).items():
    assert estimate.value == pytest.approx(_statistics(even)[name].value)
  assert _statistics(uneven)['mean'].value == pytest.approx((0 + 2 + 6) / 3)
  # 1 of a, half of nothing: b and c are human or better.
  assert _statistics(uneven)['optimality_gap'].value == pytest.approx(1 / 3)


def test_the_interval_is_that_of_resampled_seeds():
  # Means of two draws from {0, 2}: 0, 1, 1, 2, so the interval is all of it.
  mean = _statistics(_scores(a=[0.0, 2.0]))['mean']
  assert mean == (1.0, 0.0, 2.0)
  # A game of one seed never moves.
  mean = _statistics(_scores(a=[0.0, 2.0], b=[5.0]))['mean']
  assert mean == (3.0, 2.5, 3.5)


def test_seeds_are_resampled_within_games():
  # Resampled over games, the mean would vary between 0 and 100.
  mean = _statistics(_scores(a=[0.0, 0.0], b=[100.0, 100.0]))['mean']
  assert mean == (50.0, 50.0, 50.0)


def test_single_seeds_have_no_interval():
  for estimate in _statistics(_scores(a=[1.0], b=[2.0])).values():
    assert np.isnan(estimate.low)
    assert np.isnan(estimate.high)


def test_intervals_repeat_and_leave_numpys_generator_alone():
  scores = _scores(a=[0.0, 2.0, 5.0], b=[1.0, 4.0, 9.0])
  np.random.seed(3)
  first = _statistics(scores)
  draw = np.random.random()
  np.random.seed(3)
  assert np.random.random() == draw
  assert _statistics(scores) == first


def test_probability_of_improvement_by_hand():
  ours = _scores(a=[2.0, 0.0], b=[1.0], only=[9.0])
  theirs = _scores(b=[1.0, 0.0, 3.0], a=[1.0], other=[9.0])
  # a: one of two pairs. b: half a tie, one won, of three pairs.
  found = aggregate.probability_of_improvement(ours, theirs, 50)
  assert found.value == pytest.approx((1 / 2 + 1.5 / 3) / 2)
  back = aggregate.probability_of_improvement(theirs, ours, 50)
  assert back.value == pytest.approx(1.0 - found.value)
  assert (
    aggregate.probability_of_improvement(_scores(a=[1]), _scores(b=[1])) is None
  )


def test_probability_of_improvement_compares_the_same_games():
  # Games with equally many seeds stand together inside: a, c, b.
  ours = _scores(a=[1.0, 1.0], b=[10.0], c=[100.0, 100.0])
  theirs = _scores(a=[2.0], b=[9.0], c=[50.0, 50.0])
  found = aggregate.probability_of_improvement(ours, theirs, 5)
  assert found.value == pytest.approx(2 / 3)
  back = aggregate.probability_of_improvement(theirs, ours, 5)
  assert back.value == pytest.approx(1 / 3)


def test_probability_of_improvement_is_rliables():
  from rliable import metrics

  x, y = np.random.default_rng(0).integers(0, 4, (2, 3, 5)).astype(float)
  found = aggregate.probability_of_improvement(
    *({str(i): m[:, i] for i in range(5)} for m in (x, y)), 20
  )
  assert found.value == pytest.approx(metrics.probability_of_improvement(x, y))
  assert found.low < found.value < found.high


def test_atari5_needs_all_five_and_clips_at_random_play():
  weights = atari_scores.ATARI5
  assert aggregate.atari5_median(dict.fromkeys(weights, 0.0)) == 0.0
  assert aggregate.atari5_median(dict.fromkeys(weights, -3.0)) == 0.0
  # log10(1 + 99) = 2 in each game.
  value = aggregate.atari5_median(dict.fromkeys(weights, 0.99))
  assert value == pytest.approx((10 ** (2 * 0.963) - 1) / 100)
  assert aggregate.atari5_median(dict.fromkeys(list(weights)[:4], 1.0)) is None


def test_published_scores_give_the_published_statistics():
  found = {a.label: a for a in results.published_aggregates()}
  percent = lambda label, name: round(
    100 * found[label].statistics[name].value, 1
  )
  assert all(a.all_games for a in found.values())
  assert len(found) == 5
  # As printed by their authors.
  assert percent('IMPALA deep', 'median') == 191.8
  assert percent('Rainbow', 'median') == 231.0
  # As recomputed elsewhere.
  assert percent('IMPALA shallow', 'median') == 93.2
  assert percent('LASER single', 'median') == 454.9
  assert percent('LASER shared', 'median') == 412.4
  assert percent('IMPALA deep', 'mean') == 957.3
  assert percent('LASER single', 'mean') == 1741.4
  assert percent('IMPALA deep', 'iqm') == 272.3
  assert percent('Rainbow', 'iqm') == 290.0
  # The estimate from five games, of these 192 and 455.
  assert 100 * found['IMPALA deep'].atari5 == pytest.approx(228.7, abs=0.1)
  assert 100 * found['LASER single'].atari5 == pytest.approx(364.5, abs=0.1)


def test_published_scores_over_some_games_are_over_these():
  found = results.published_aggregates({'pong', 'tetris'})
  assert [len(a.scores) for a in found] == [1] * 5
  assert not any(a.all_games for a in found)
  assert not results.published_aggregates({'tetris'})


def test_headlines_say_how_certain_they_are():
  medians = {h.agent: (h.median, h.certainty) for h in published.HEADLINES}
  assert medians['STACX'][0] == '364'
  assert 'second-hand' in medians['BMG, L = 4, KL & V'][1]
  assert 'not re-checked' in medians['BMG, L = 1, KL'][1]
  assert all(certainty for _, certainty in medians.values())
