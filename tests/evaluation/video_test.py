"""Films show the very games that were played."""

import itertools
import threading

import imageio.v2 as imageio
import numpy as np
import pytest

from bmg.actors import environment
from bmg.configs.schema import checks
from bmg.evaluation import evaluator, video
from tests.actors import fakes


def play_game(**env):
  config = fakes.make_config(fakes.make_env_config(**env))
  params = fakes.make_params(config, environment.num_actions(config.env))
  results = evaluator.play_episodes(
    config, params, 1, 1, 0, False, threading.Event(), fakes.nothing
  )
  return config.env, results.first_game, int(results.lengths[0])


@pytest.mark.parametrize(
  ('game', 'sticky'), [('breakout', 0.0), ('ms_pacman', 0.25)]
)
def test_a_full_game_is_replayed(game, sticky):
  config, played, length = play_game(
    game=game, sticky_action_probability=sticky
  )
  # Raises if the return is not the same.
  pictures = list(video.replay(config, played))
  # Breakout ends within an action repeat, and so does its film.
  assert len(pictures) == length // 2
  assert len(played.actions) == -(-length // 4)
  assert all(picture.shape == (210, 160, 3) for picture in pictures)
  assert pictures[0].dtype == np.uint8
  assert played.episode_return > 0 or game == 'breakout'


def test_pictures_match_what_the_policy_saw():
  config, game, _ = play_game(
    height=210,
    width=160,
    grayscale=False,
    max_pool=True,
    max_episode_frames=400,
  )
  games = environment.AtariEnvironment(config, 1, 1, np.array([game.seed]))
  games.reset()
  pictures = list(video.replay(config, game))
  # Two pictures per action; both are the maximum of two frames. The last step
  # shows the next game.
  for action, picture in zip(game.actions[:-1], pictures[1::2], strict=False):
    step = games.step(np.array([action]))
    np.testing.assert_array_equal(step.frames[0], picture)
  games.close()


def test_a_replay_of_another_game_is_told():
  config, game, _ = play_game(game='breakout')
  changed = game._replace(episode_return=game.episode_return + 1)
  with pytest.raises(RuntimeError, match='another game'):
    list(video.replay(config, changed))


@pytest.mark.parametrize('name', ['game.mp4', 'game.gif', 'GAME.GIF'])
def test_films_can_be_read_back(name, tmp_path):
  rng = np.random.default_rng(0)
  block = rng.integers(255, size=(12, 21, 16, 3), dtype=np.uint8)
  pictures = np.repeat(np.repeat(block, 10, axis=1), 10, axis=2)
  path = str(tmp_path / name)
  video.write_video(path, iter(pictures), video.PICTURES_PER_SECOND)
  with imageio.get_reader(path) as reader:
    read = np.stack([frame[..., :3] for frame in reader])
  assert read.shape == (12, 210, 160, 3)
  errors = np.abs(read.astype(float) - pictures).mean(axis=(1, 2, 3))
  mixed = np.abs(read[::-1].astype(float) - pictures).mean(axis=(1, 2, 3))
  assert (errors < 0.4 * mixed).all()


def test_an_unknown_suffix_names_the_known_ones(tmp_path):
  path = str(tmp_path / 'game.mp5')
  with pytest.raises(checks.ConfigError, match=r"'\.mp5'.*\.mp4, \.gif"):
    video.write_video(path, itertools.repeat(np.zeros((2, 2, 3))), 30)
  assert not list(tmp_path.iterdir())
