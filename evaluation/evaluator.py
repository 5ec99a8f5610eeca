"""Plays full games by the protocol, and reports their scores."""

import contextlib
import csv
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from bmg.actors import environment as environment_lib
from bmg.actors import parameters as parameters_lib
from bmg.actors import policy as policy_lib
from bmg.agents import seeding
from bmg.agents.types import Params
from bmg.configs import schema
from bmg.evaluation import atari_scores, records

_POLL_PERIOD_S = 1.0


class Game(NamedTuple):
  """All it takes to play one game again, step by step: see `video.replay`."""

  # Of the emulator.
  seed: int
  no_ops: int
  # int32 [number of steps].
  actions: np.ndarray
  # Raw, to check the replay against.
  episode_return: float


class EpisodeResults(NamedTuple):
  """Scores of N full games."""

  # float32 [N]: raw returns.
  returns: np.ndarray
  # float32 [N]: emulator frames acted on, no-ops excluded.
  lengths: np.ndarray
  first_game: Game


def play_episodes(
  config: schema.Config,
  params: Params,
  num_episodes: int,
  num_envs: int,
  seed: int,
  greedy: bool,
  stop: threading.Event,
  heartbeat: Callable[[], None],
) -> EpisodeResults | None:
  """Plays full games with fixed parameters.

  Each of the parallel environments has its own quota of games: the first N
  games to end of all would be the short ones.

  Args:
    config: of the run; `config.env` is the protocol.
    params: the agent's, on the host or on the device.
    num_episodes: N.
    num_envs: how many games to play at a time; more than N are not started.
    seed: of games and policy, not negative.
    greedy: take the most likely action instead of sampling.
    stop: abandons the games.
    heartbeat: called at every step.

  Returns:
    The results, or None if stopped before the last game was over.
  """
  num_envs = min(num_envs, num_episodes)
  quotas = np.full(num_envs, num_episodes // num_envs)
  quotas[: num_episodes % num_envs] += 1
  seeds = seeding.derive_seeds(seed, 'evaluator', num_seeds=num_envs + 1)
  environment = environment_lib.AtariEnvironment(
    config.env, num_envs, config.actors.env_threads, seeds[:num_envs]
  )
  policy = policy_lib.Policy(
    config, environment.num_actions, seeds[num_envs], greedy
  )
  params = jax.device_put(params)
  scores: list[list[tuple[float, float]]] = [[] for _ in range(num_envs)]
  first_actions = []
  with contextlib.closing(environment):
    first_step = environment.reset()
    first_no_ops = int(environment.no_ops[0])
    for actions, step in _play(config, environment, policy, params, first_step):
      heartbeat()
      if stop.is_set():
        return None
      if not scores[0]:
        first_actions.append(actions[0])
      for i in np.flatnonzero(step.starts):
        if len(scores[i]) < quotas[i]:
          scores[i].append((step.episode_returns[i], step.episode_lengths[i]))
      if all(len(scores[i]) == quotas[i] for i in range(num_envs)):
        break
  returns, lengths = np.array(list(itertools.chain(*scores)), np.float32).T
  first_game = Game(
    int(seeds[0]), first_no_ops, np.array(first_actions), float(returns[0])
  )
  return EpisodeResults(returns, lengths, first_game)


def _play(
  config: schema.Config,
  environment: environment_lib.AtariEnvironment,
  policy: policy_lib.Policy,
  params: Params,
  step: environment_lib.StepResult,
) -> Iterator[tuple[np.ndarray, environment_lib.StepResult]]:
  """Yields actions, int32 [E], and what came of them, for ever."""
  num_envs, frame_stack = len(step.starts), config.env.frame_stack
  frames = np.zeros((num_envs, frame_stack, *config.env.frame_shape), np.uint8)
  starts = np.zeros((num_envs, frame_stack), np.bool_)
  while True:
    frames = np.concatenate([frames[:, 1:], step.frames[:, None]], axis=1)
    starts = np.concatenate([starts[:, 1:], step.starts[:, None]], axis=1)
    actions = policy(params, frames, starts).actions
    step = environment.step(actions)
    yield actions, step


def run_evaluator(
  config: schema.Config,
  workdir: str,
  incarnation: int,
  source: parameters_lib.ParameterSource,
  stop: threading.Event,
  heartbeat: Callable[[], None],
) -> None:
  """Evaluates every so many frames of training, at its start and at its end.

  Writes `evaluation.csv` and its companions. Returns once the parameters of the
  run's last frame have been evaluated, or when stopped.

  Args:
    config: of the run.
    workdir: its folder.
    incarnation: how often this evaluator has been restarted.
    source: gives the parameters.
    stop: abandons the evaluation under way.
    heartbeat: called at every turn, at every step of a game and in every wait.
  """
  with parameters_lib.ParameterFetcher(source) as fetcher:
    if not fetcher.wait_first(stop, heartbeat):
      return
    history = _History(workdir, fetcher.latest().num_frames)
    with contextlib.closing(history):
      while not stop.is_set():
        heartbeat()
        latest = fetcher.latest()
        history.go_back_to(latest.num_frames)
        if _is_due(config, latest.num_frames, history.last):
          row = _evaluate(config, latest, incarnation, stop, heartbeat)
          if row is None:
            return
          history.write(row)
        if history.last is not None and history.last >= config.num_frames:
          logging.info('The last parameters of the run have been evaluated.')
          return
        fetcher.request()
        stop.wait(_POLL_PERIOD_S)


def _is_due(config: schema.Config, num_frames: int, last: int | None) -> bool:
  """Whether parameters of this age are to be evaluated."""
  if last is None:
    return True
  ended = num_frames >= config.num_frames > last
  return ended or num_frames >= last + config.evaluator.period_frames


def _evaluate(
  config: schema.Config,
  latest: parameters_lib.VersionedParams,
  incarnation: int,
  stop: threading.Event,
  heartbeat: Callable[[], None],
) -> dict[str, float] | None:
  """Returns one row of `evaluation.csv`, or None if stopped."""
  started = time.monotonic()
  (seed,) = seeding.derive_seeds(
    config.seed, 'evaluator', latest.version, incarnation
  )
  results = play_episodes(
    config,
    latest.params,
    config.evaluator.num_episodes,
    config.evaluator.num_envs,
    int(seed),
    config.evaluator.greedy,
    stop,
    heartbeat,
  )
  if results is None:
    return None
  mean_return = float(results.returns.mean())
  human_normalized = atari_scores.human_normalized_score(
    config.env.game, mean_return
  )
  row = {
    'num_frames': latest.num_frames,
    'params_version': latest.version,
    'num_episodes': len(results.returns),
    'mean_return': mean_return,
    'std_return': float(results.returns.std()),
    'min_return': float(results.returns.min()),
    'max_return': float(results.returns.max()),
    'mean_length': float(results.lengths.mean()),
    'human_normalized_score': (
      math.nan if human_normalized is None else human_normalized
    ),
    'seconds': time.monotonic() - started,
  }
  logging.info(
    'Evaluation at %d frames: mean return %.2f over %d games in %.0f s',
    latest.num_frames,
    mean_return,
    len(results.returns),
    row['seconds'],
  )
  return row


class _History:
  """The rows written so far, and the frame count of the last of them."""

  def __init__(self, workdir: str, num_frames: int):
    self._workdir = workdir
    self.last: int | None = None
    self._open(num_frames)

  def go_back_to(self, num_frames: int) -> None:
    """Drops later rows, which a learner back at a checkpoint is to redo."""
    if self.last is not None and num_frames < self.last:
      logging.warning('The learner went back to %d frames.', num_frames)
      self.close()
      self._open(num_frames)

  def write(self, row: dict[str, float]) -> None:
    self._records.write(row)
    self.last = int(row['num_frames'])

  def close(self) -> None:
    self._records.close()

  def _open(self, num_frames: int) -> None:
    self._records = records.RunRecords(
      self._workdir, name='evaluation', resume_at=num_frames
    )
    path = os.path.join(self._workdir, 'evaluation.csv')
    with open(path, newline='') as file:
      rows = [int(row['num_frames']) for row in csv.DictReader(file)]
    self.last = max(rows, default=None)
