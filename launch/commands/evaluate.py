"""Plays full games with a checkpoint of a run, by the run's protocol.

Usage: python -m bmg evaluate --workdir=runs/pong-bmg-1 --num_episodes=30
         --video=pong.mp4
"""

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags, logging

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.local import environment
from bmg.launch.run import folder as run_folder
from bmg.launch.run import topology

_CHECKPOINTS = ('latest', 'best')


def main(argv: Sequence[str]) -> int:
  """Evaluates one checkpoint and prints the scores.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status, 0.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: there is no checkpoint that can be read.
  """
  flag_values = _define_flags()
  cli.parse(flag_values, argv)
  args: dict[str, Any] = {name: flag_values[name].value for name in flag_values}
  config = run_folder.read_config(args['workdir'])
  _check(args)
  # Only now, since JAX reads its settings when it is imported.
  os.environ.update(
    environment.environment(
      topology.EVALUATOR, schema.to_dict(config), os.environ
    )
  )
  # Orbax warns that what is to be read only is read only.
  logging.set_verbosity(logging.ERROR)
  from bmg.evaluation import atari_scores, evaluator, video
  from bmg.learner import checkpoints

  if args['video']:
    try:
      video.check_path(args['video'])
    except checks.ConfigError as error:
      # It is a flag here, not a field of the configuration.
      message = str(error).replace('config.video = ', '--video=', 1)
      raise cli.UsageError(message) from error
  params, counters = checkpoints.load_params(
    os.path.join(args['workdir'], 'checkpoints'),
    best=args['checkpoint'] == 'best',
  )
  print(
    f'{config.env.game}: playing {args["num_episodes"]} games with the '
    f'{args["checkpoint"]} checkpoint, of {counters["num_frames"]} frames',
    flush=True,
  )
  results = evaluator.play_episodes(
    config,
    params,
    args['num_episodes'],
    num_envs=args['num_envs'],
    seed=args['seed'],
    greedy=args['greedy'],
    stop=threading.Event(),
    heartbeat=lambda: None,
  )
  assert results is not None  # Nobody sets `stop`.
  normalized = atari_scores.human_normalized_score(
    config.env.game, float(results.returns.mean())
  )
  _print_scores(results.returns, normalized)
  if args['video']:
    pictures = video.replay(config.env, results.first_game)
    video.write_video(args['video'], pictures, video.PICTURES_PER_SECOND)
    print(f'video             {args["video"]} (the first game)')
  return 0


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'workdir', None, 'Folder of the run.', flag_values=flag_values
  )
  flags.DEFINE_integer(
    'num_episodes',
    30,
    'Full games to play.',
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'num_envs',
    8,
    'Games played at a time.',
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    'checkpoint',
    'latest',
    _CHECKPOINTS,
    'best: by the mean return of training.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'video',
    None,
    'Film of the first game: a path that ends in .mp4 or .gif.',
    flag_values=flag_values,
  )
  flags.DEFINE_boolean(
    'greedy',
    False,
    'Take the most likely action instead of sampling.',
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'seed',
    0,
    'Of games and policy.',
    lower_bound=0,
    flag_values=flag_values,
  )
  return flag_values


def _check(args: dict[str, Any]) -> None:
  """Finds out before the games that the film cannot be saved after them."""
  folder = os.path.dirname(os.path.abspath(str(args['video'] or '.')))
  if args['video'] and not os.access(folder, os.W_OK):
    raise cli.UsageError(
      f'--video={args["video"]}: the folder {folder} cannot be written to'
    )


def _print_scores(returns: np.ndarray, normalized: float | None) -> None:
  score = 'unknown for this game' if normalized is None else f'{normalized:.3f}'
  print(f'mean              {returns.mean():.2f}')
  print(f'std               {returns.std():.2f}')
  print(f'min               {returns.min():.2f}')
  print(f'max               {returns.max():.2f}')
  print(f'human-normalised  {score}')


def entry() -> None:
  """The command `bmg evaluate`."""
  cli.run_main(main)


if __name__ == '__main__':
  entry()
