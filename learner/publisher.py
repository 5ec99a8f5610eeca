"""Hands parameters to the actors without holding up the learner."""

import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bmg.agents import types


class Published(NamedTuple):
  """Parameters with their age."""

  version: int
  num_frames: int
  params: types.Params


class ParameterPublisher:
  """The newest parameters: put by the learner, fetched by server threads.

  `publish` starts a copy on the device and returns. The copy to the host is
  made when an actor first asks for that version, in the thread that asks.
  """

  def __init__(self) -> None:
    # The training step reuses the memory of its input, so what is published
    # must be a copy.
    self._copy = jax.jit(lambda params: jax.tree.map(jnp.copy, params))
    self._newest: Published | None = None
    self._on_host: Published | None = None
    self._host_is_finite = True
    self._host_lock = threading.Lock()

  def publish(self, published: Published) -> None:
    """Makes parameters available, given on the device."""
    self._newest = published._replace(params=self._copy(published.params))

  def newest(self) -> Published:
    """Returns what was published last, on the device; safe in any thread.

    Raises:
      RuntimeError: nothing was published yet.
    """
    if self._newest is None:
      raise RuntimeError('no parameters were published yet')
    return self._newest

  def get(self, unless_version: int) -> Published | None:
    """Returns the newest parameters as NumPy; safe in any thread.

    Args:
      unless_version: the version that the caller has. Compared for equality: a
        learner that went back to a checkpoint publishes lower versions.

    Returns:
      None if the caller has them already, or if they are not finite: the
      learner is about to find out.
    """
    with self._host_lock:
      newest = self._newest
      if newest is None or newest.version == unless_version:
        return None
      if self._on_host is None or self._on_host.version != newest.version:
        params = jax.device_get(newest.params)
        self._on_host = newest._replace(params=params)
        self._host_is_finite = all(
          np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)
        )
      return self._on_host if self._host_is_finite else None
