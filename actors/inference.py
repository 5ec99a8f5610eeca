"""Central inference: the learner's devices choose the actions of all actors.

For accelerators: actors need neither the network nor its parameters, and send
what they see at each step. The learner answers many of them with one batch.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import numpy as np
from absl import logging

from bmg.actors import parameters
from bmg.actors import policy as policy_lib
from bmg.agents import seeding
from bmg.agents.types import Params
from bmg.configs import schema

_RETRY_S = 0.5
_REPORT_EVERY = 20


class InferenceServer:
  """The learner's side: acts for up to N actors at once, E games of each.

  Threads that ask at about the same time share a batch, and the first of them
  computes it, when all N are there or it has waited for long enough.
  """

  def __init__(
    self,
    config: schema.Config,
    num_actions: int,
    incarnation: int,
    newest: Callable[[], tuple[int, int, Params]],
  ) -> None:
    """Compiles nothing yet.

    Args:
      config: of the whole run.
      num_actions: A, of the game.
      incarnation: how often the learner has been restarted.
      newest: returns version, frames and parameters, on the device.
    """
    (seed,) = seeding.derive_seeds(config.seed, 'inference', 0, incarnation)
    self._policy = policy_lib.Policy(config, num_actions, seed)
    self._newest = newest
    self._size = config.actors.num_actors
    self._wait_s = config.actors.inference_wait_ms / 1000
    # Guards the batch that is being filled.
    self._filling = threading.Lock()
    # One batch is computed at a time; meanwhile the next one fills.
    self._computing = threading.Lock()
    self._batch = _Batch()

  def act(
    self, frames: np.ndarray, starts: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, int]:
    """Chooses actions by the newest parameters; for many threads at once.

    Args:
      frames: uint8 [E, S, H, W, C], see `policy.Policy`.
      starts: bool [E, S].

    Returns:
      Actions, int32 [E], logits, float32 [E, A], and the version of the
      parameters.

    Raises:
      RuntimeError: the batch failed; the log of the learner says why.
    """
    with self._filling:
      batch = self._batch
      index = len(batch.requests)
      batch.requests.append((frames, starts))
      if len(batch.requests) == self._size:
        self._close(batch)
    if index == 0:
      batch.closed.wait(self._wait_s)
      with self._computing:
        with self._filling:
          self._close(batch)
        try:
          batch.answer = self._compute(batch.requests)
        finally:
          batch.done.set()
    batch.done.wait()
    if batch.answer is None:
      raise RuntimeError('the learner failed to act')
    choice, version = batch.answer
    games = slice(index * len(starts), (index + 1) * len(starts))
    return choice.actions[games], choice.logits[games], version

  def _close(self, batch: '_Batch') -> None:
    """Has those who ask from now on fill another batch."""
    if self._batch is batch:
      self._batch = _Batch()
      batch.closed.set()

  def _compute(
    self, requests: Sequence[tuple[np.ndarray, np.ndarray]]
  ) -> tuple[policy_lib.Choice, int]:
    version, _, params = self._newest()
    # Always N of them: each other number would be compiled anew.
    padding = [requests[0]] * (self._size - len(requests))
    frames, starts = (
      np.concatenate(parts) for parts in zip(*requests, *padding, strict=True)
    )
    return self._policy(params, frames, starts), version


class _Batch:
  """Requests of several threads, answered together."""

  def __init__(self) -> None:
    self.requests: list[tuple[np.ndarray, np.ndarray]] = []
    self.answer: tuple[policy_lib.Choice, int] | None = None
    self.closed = threading.Event()
    self.done = threading.Event()


class InferenceSource(Protocol):
  """What actors reach of an `InferenceServer`."""

  def act(
    self, frames: np.ndarray, starts: np.ndarray, /
  ) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns actions [E], logits [E, A] and their version.

    Args:
      frames: uint8 [E, S, H, W, C].
      starts: bool [E, S].

    Raises:
      TimeoutError: there was no answer in time.
      RuntimeError: the answer is an error.
    """


class Stopped(Exception):  # noqa: N818 (says what happened)
  """The run stops; no more actions are chosen."""


class RemotePolicy:
  """The actors' side: a `Policy`, and the `ParameterFetcher` that it needs not.

  Without an answer there is no next step, so it asks until there is one.
  """

  def __init__(
    self,
    source: InferenceSource,
    stop: threading.Event,
    heartbeat: Callable[[], None],
  ) -> None:
    """Asks nothing yet.

    Args:
      source: chooses the actions.
      stop: ends each wait, by `Stopped`.
      heartbeat: called at each step and retry.
    """
    self._source = source
    self._stop = stop
    self._heartbeat = heartbeat

  def __call__(
    self,
    params: Params,
    frames: np.ndarray | jax.Array,
    starts: np.ndarray | jax.Array,
  ) -> policy_lib.Choice:
    """Asks for actions; `params` are not looked at.

    Raises:
      Stopped: `stop` was set before there was an answer.
    """
    num_failures = 0
    while not self._stop.is_set():
      self._heartbeat()
      try:
        answer = self._source.act(np.asarray(frames), np.asarray(starts))
        return policy_lib.Choice(*answer)
      except (TimeoutError, RuntimeError) as error:
        if num_failures % _REPORT_EVERY == 0:
          logging.warning('No actions from the learner: %s', error)
        num_failures += 1
        self._stop.wait(_RETRY_S)
    raise Stopped

  def wait_first(
    self, stop: threading.Event, heartbeat: Callable[[], None]
  ) -> bool:
    """There is nothing to wait for: the first step does."""
    return not stop.is_set()

  def request(self) -> None:
    """Nothing is fetched."""

  def latest(self) -> parameters.VersionedParams:
    """Returns no parameters; the version comes with each choice."""
    return parameters.VersionedParams(parameters.NO_VERSION, 0, {})
