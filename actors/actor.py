"""The acting loop: E games, one policy, unrolls of T steps."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from actors import environment as environment_lib
from actors import inference
from actors import parameters as parameters_lib
from actors import policy as policy_lib
from agents import seeding, types
from configs import schema


class UnrollWriter(Protocol):
  """Where unrolls go: replay, or a stand-in for it."""

  def write(
    self,
    unrolls: Sequence[types.Unroll],
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> float:
    """Inserts unrolls, waiting for room; returns the seconds waited."""


class UnrollCollector:
  """Plays E games step by step, and cuts them into unrolls of T steps."""

  def __init__(
    self,
    config: schema.Config,
    environment: environment_lib.AtariEnvironment,
    policy: policy_lib.Policy | inference.RemotePolicy,
  ):
    self._unroll_length = config.actors.unroll_length
    self._frame_stack = config.env.frame_stack
    self._num_envs = config.actors.envs_per_actor
    self._spec = types.unroll_spec(
      self._unroll_length,
      self._frame_stack,
      config.env.frame_shape,
      environment.num_actions,
    )
    self._environment = environment
    self._policy = policy
    first = environment.reset()
    # Only the last S frames of each game matter: the first of the next unroll.
    self._batch = self._new_batch()
    self._batch.frames[:, -1] = first.frames
    self._batch.starts[:, -1] = first.starts

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
    for t in range(T):
      choice = self._policy(
        params, batch.frames[:, t : t + S], batch.starts[:, t : t + S]
      )
      if t == 0 and choice.version is not None:
        version = choice.version
      step = self._environment.step(choice.actions)
      batch.actions[:, t] = choice.actions
      batch.behaviour_logits[:, t] = choice.logits
      batch.rewards[:, t] = step.rewards
      batch.discounts[:, t] = step.discounts
      batch.episode_returns[:, t] = step.episode_returns
      batch.episode_lengths[:, t] = step.episode_lengths
      batch.frames[:, S + t] = step.frames
      batch.starts[:, S + t] = step.starts
    batch.params_version[:] = version
    batch.actor_run_id[:] = run_id
    batch.insert_wait[:] = insert_wait
    self._batch = batch
    return [
      types.Unroll(*(field[game] for field in batch))
      for game in range(self._num_envs)
    ]

  def _new_batch(self) -> types.Unroll:
    """Returns an `Unroll` of zeros with a leading axis E."""
    return types.Unroll(
      *(
        np.zeros((self._num_envs, *field.shape), field.dtype)
        for field in self._spec
      )
    )


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
  environment = environment_lib.AtariEnvironment(
    config.env, num_envs, config.actors.env_threads, seeds[:num_envs]
  )
  policy: policy_lib.Policy | inference.RemotePolicy
  parameters: contextlib.AbstractContextManager[
    parameters_lib.ParameterFetcher | inference.RemotePolicy
  ]
  if chooser is not None:
    policy = inference.RemotePolicy(chooser, stop, heartbeat)
    parameters = contextlib.nullcontext(policy)
  else:
    policy = policy_lib.Policy(config, environment.num_actions, seeds[num_envs])
    parameters = parameters_lib.ParameterFetcher(source)
  collector = UnrollCollector(config, environment, policy)
  run_id = secrets.randbits(63)
  insert_wait = 0.0
  with (
    contextlib.closing(environment),
    parameters as fetcher,
    contextlib.suppress(inference.Stopped),
  ):
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
