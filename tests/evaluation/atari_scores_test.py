import ale_py.roms
import pytest

from bmg.evaluation import atari_scores


def test_known_scores():
  # Pong: random -20.7, human 14.6.
  assert atari_scores.human_normalized_score('pong', -20.7) == 0.0
  assert atari_scores.human_normalized_score('pong', 14.6) == 1.0
  score = atari_scores.human_normalized_score('pong', 21.0)
  assert score == pytest.approx(41.7 / 35.3)
  # Human below random would flip the sign: a loss is nearer to zero in Skiing.
  assert atari_scores.human_normalized_score('skiing', -4336.9) == 1.0


def test_video_pinball_random_score_is_zero_by_convention():
  assert atari_scores.human_normalized_score('video_pinball', 0.0) == 0.0
  assert atari_scores.human_normalized_score('video_pinball', 17667.9) == 1.0


def test_the_57_games_are_roms_and_solvable():
  references = atari_scores.references()
  assert len(references) == 57
  assert set(references) <= set(ale_py.roms.get_all_rom_ids())
  assert all(ref.human != ref.random for ref in references.values())


def test_a_game_without_reference_has_no_normalised_score():
  assert atari_scores.human_normalized_score('tetris', 1.0) is None
