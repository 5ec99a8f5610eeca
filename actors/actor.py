"""The acting loop: E games, one policy, unrolls of T steps."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from bmg.actors import environment as environment_lib
from bmg.actors import inference
from bmg.actors import parameters as parameters_lib
from bmg.actors import policy as policy_lib
from bmg.agents import seeding, types
from bmg.configs import schema


class UnrollWriter(Protocol):
  """Where unrolls go: replay, or a stand-in for it."""

  def write(
    self,
    unrolls: Sequence[types.Unroll],
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> float:
    """Inserts unrolls, waiting for room; returns the seconds waited."""


class _Group(NamedTuple):
  """Games that are stepped together, and their rows in a batch."""

  games: environment_lib.AtariEnvironment
  rows: slice


class UnrollCollector:
  """Plays E games step by step, and cuts them into unrolls of T steps."""

  def __init__(
    self,
    config: schema.Config,
    groups: Sequence[environment_lib.AtariEnvironment],
    policy: policy_lib.Policy | inference.RemotePolicy,
  ):
    """Starts the games.

    Args:
      config: of the whole run.
      groups: of games, E in all.
      policy: chooses actions for one group at a time.
    """
    self._unroll_length = config.actors.unroll_length
    self._frame_stack = config.env.frame_stack
    self._num_envs = config.actors.envs_per_actor
    self._spec = types.unroll_spec(
      self._unroll_length,
      self._frame_stack,
      config.env.frame_shape,
      groups[0].num_actions,
    )
    size = config.actors.games_per_group
    self._groups = [
      _Group(games, slice(index * size, (index + 1) * size))
      for index, games in enumerate(groups)
    ]
    self._policy = policy
    # Only the last S frames of each game matter: the first of the next unroll.
    self._batch = self._new_batch()
    for group in self._groups:
      first = group.games.reset()
      self._batch.frames[group.rows, -1] = first.frames
      self._batch.starts[group.rows, -1] = first.starts

  def collect(
    self, params: types.Params, version: int, run_id: int, insert_wait: float
  ) -> list[types.Unroll]:
    """Takes T steps in every game, and returns an unroll from each.

    Args:
      params: act from the first step to the last.
      version: of `params`; stored, like the following ones. If the policy has
        parameters of its own, the version that takes the first step counts.
      run_id: of this life of the actor.
      insert_wait: share of its time that the actor last waited on insertion.

    Returns:
      E unrolls, in arrays that are not used again: the receiver may keep them.
    """
    S, T = self._frame_stack, self._unroll_length
    batch, previous = self._new_batch(), self._batch
    batch.frames[:, :S] = previous.frames[:, T:]
    batch.starts[:, :S] = previous.starts[:, T:]
    batch.params_version[:] = version
    for t in range(T + 1):
      for group in self._groups:
        # Meanwhile the other groups are being stepped.
        if t > 0:
          self._receive(group, batch, t - 1)
        if t < T:
          self._act(group, batch, t, params)
    batch.actor_run_id[:] = run_id
    batch.insert_wait[:] = insert_wait
    self._batch = batch
    return [
      types.Unroll(*(field[game] for field in batch))
      for game in range(self._num_envs)
    ]

  def _act(
    self, group: '_Group', batch: types.Unroll, t: int, params: types.Params
  ) -> None:
    """Chooses the actions of step t, and begins it."""
    rows, seen = group.rows, slice(t, t + self._frame_stack)
    choice = self._policy(
      params, batch.frames[rows, seen], batch.starts[rows, seen]
    )
    group.games.send(choice.actions)
    batch.actions[rows, t] = choice.actions
    batch.behaviour_logits[rows, t] = choice.logits
    if t == 0 and choice.version is not None:
      batch.params_version[rows] = choice.version

  def _receive(self, group: '_Group', batch: types.Unroll, t: int) -> None:
    """Waits for step t; notes what it shows."""
    rows, step = group.rows, group.games.receive()
    batch.rewards[rows, t] = step.rewards
    batch.discounts[rows, t] = step.discounts
    batch.episode_returns[rows, t] = step.episode_returns
    batch.episode_lengths[rows, t] = step.episode_lengths
    batch.frames[rows, self._frame_stack + t] = step.frames
    batch.starts[rows, self._frame_stack + t] = step.starts

  def _new_batch(self) -> types.Unroll:
    """Returns an `Unroll` of zeros with a leading axis E."""
    return types.Unroll(
      *(
        np.zeros((self._num_envs, *field.shape), field.dtype)
        for field in self._spec
      )
    )


def make_games(
  config: schema.Config, seeds: np.ndarray
) -> list[environment_lib.AtariEnvironment]:
  """Starts the games of one actor, in its groups.

  Args:
    config: of the whole run.
    seeds: int [E].
  """
  actors = config.actors
  return [
    environment_lib.AtariEnvironment(
      config.env, actors.games_per_group, actors.env_threads, group
    )
    for group in np.split(seeds, actors.env_groups)
  ]


def run_actor(
  config: schema.Config,
  actor_index: int,
  incarnation: int,
  writer: UnrollWriter,
  source: parameters_lib.ParameterSource,
  stop: threading.Event,
  heartbeat: Callable[[], None],
  chooser: inference.InferenceSource | None = None,
) -> None:
  """Plays and writes unrolls until stopped.

  Args:
    config: of the whole run.
    actor_index: which actor this is; with `config.seed` and `incarnation` it
      seeds the games and the policy.
    incarnation: how often this actor has been restarted.
    writer: takes the unrolls. A slow one holds the actor back. Stays open.
    source: gives the parameters. A slow or dead one does not.
    stop: ends the loop.
    heartbeat: called at every turn and inside every wait.
    chooser: chooses the actions instead, if there is one. A slow or dead one
      does hold the actor back.
  """
  num_envs = config.actors.envs_per_actor
  seeds = seeding.derive_seeds(
    config.seed, 'actor', actor_index, incarnation, num_envs + 1
  )
  groups = make_games(config, seeds[:num_envs])
  policy: policy_lib.Policy | inference.RemotePolicy
  parameters: contextlib.AbstractContextManager[
    parameters_lib.ParameterFetcher | inference.RemotePolicy
  ]
  if chooser is not None:
    policy = inference.RemotePolicy(chooser, stop, heartbeat)
    parameters = contextlib.nullcontext(policy)
  else:
    policy = policy_lib.Policy(config, groups[0].num_actions, seeds[num_envs])
    parameters = parameters_lib.ParameterFetcher(source)
  collector = UnrollCollector(config, groups, policy)
  run_id = secrets.randbits(63)
  insert_wait = 0.0
  with contextlib.ExitStack() as stack:
    for games in groups:
      stack.enter_context(contextlib.closing(games))
    fetcher = stack.enter_context(parameters)
    stack.enter_context(contextlib.suppress(inference.Stopped))
    fetcher.wait_first(stop, heartbeat)
    turn_started = time.monotonic()
    while not stop.is_set():
      heartbeat()
      version, _, params = fetcher.latest()
      unrolls = collector.collect(params, version, run_id, insert_wait)
      # Ask before writing: where the writer waits, the parameters come in
      # meanwhile, and are fresh when the next unroll begins.
      fetcher.request()
      waited = writer.write(unrolls, stop, heartbeat)
      last_turn, turn_started = turn_started, time.monotonic()
      insert_wait = waited / (turn_started - last_turn)
