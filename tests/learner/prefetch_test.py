import threading

import jax
import numpy as np
import pytest

from bmg.learner import prefetch, training
from tests.learner import fakes


class _Numbered(fakes.FakeReader):
  """Writes each unroll's number into its `actor_run_id`."""

  def unroll(self, index):
    return super().unroll(index)._replace(actor_run_id=np.int64(index))


def _first_batches(config, count):
  """Returns batches as NumPy, with their statistics."""
  feed = prefetch.Prefetcher(
    _Numbered(config), config, lambda batch: batch, lambda: None
  )
  try:
    return [feed.get(threading.Event()) for _ in range(count)]
  finally:
    feed.close()


def test_batches_hold_online_unrolls_first_and_fresh_replay_for_bootstrap():
  config = fakes.tiny_config(
    meta={
      'mode': 'bmg',
      'inner_updates': 2,
      'bootstrap_length': 4,
      'bootstrap_batch': 2,
    },
    replay={'online_batch': 2, 'replay_batch': 3},
  )
  first, second = _first_batches(config, 2)
  r = 10**6
  np.testing.assert_array_equal(
    first.batch.own.actor_run_id,
    [[0, 1, r, r + 1, r + 2], [2, 3, r + 3, r + 4, r + 5]],
  )
  np.testing.assert_array_equal(
    first.batch.bootstrap.actor_run_id,
    [[r + 6, r + 7], [r + 8, r + 9], [r + 10, r + 11]],
  )
  np.testing.assert_array_equal(
    second.batch.own.actor_run_id[:, :3],
    [[4, 5, r + 12], [6, 7, r + 15]],
  )
  # [K, B, T + S, H, W, C] and [L - 1, R, T + S, H, W, C].
  assert first.batch.own.frames.shape == (2, 5, 6, 42, 42, 1)
  assert first.batch.bootstrap.frames.shape == (3, 2, 6, 42, 42, 1)
  # Statistics are those of the online unrolls: 1 and 3 ended a game.
  np.testing.assert_array_equal(first.statistics.episode_returns, [1, 3])
  assert first.statistics.params_versions.shape == (4,)


def test_without_a_bootstrap_its_batches_are_empty():
  config = fakes.tiny_config(replay={'online_batch': 2, 'replay_batch': 1})
  (item,) = _first_batches(config, 1)
  assert item.batch.own.rewards.shape == (1, 3, 4)
  assert item.batch.bootstrap.rewards.shape == (0, 3, 4)


def test_replay_is_left_alone_when_nothing_is_drawn_from_it():
  config = fakes.tiny_config(replay={'online_batch': 2, 'replay_batch': 0})

  class NoReplay(_Numbered):
    def replay(self, num_unrolls, stop, heartbeat):
      raise AssertionError('there is no such table')

  feed = prefetch.Prefetcher(
    NoReplay(config), config, lambda batch: batch, lambda: None
  )
  item = feed.get(threading.Event())
  feed.close()
  np.testing.assert_array_equal(item.batch.own.actor_run_id, [[0, 1]])


def test_reads_ahead_no_further_than_configured():
  config = fakes.tiny_config(learner={'prefetch': 3})
  made = []
  full = threading.Event()

  def put(batch):
    made.append(batch)
    if len(made) == 4:
      full.set()
    return batch

  feed = prefetch.Prefetcher(_Numbered(config), config, put, lambda: None)
  # Three wait in the queue, the fourth is in the thread's hand.
  assert full.wait(10)
  assert not feed.empty
  feed.close()
  assert len(made) == 4


@pytest.mark.parametrize(
  'meta',
  [
    {'mode': 'none'},
    {'mode': 'bmg', 'inner_updates': 2, 'bootstrap_length': 4},
  ],
)
def test_batches_are_as_the_step_is_compiled_for(meta):
  config = fakes.tiny_config(
    meta=meta, replay={'online_batch': 2, 'replay_batch': 3}
  )
  (item,) = _first_batches(config, 1)
  expected = training.zero_batch(config, fakes.NUM_ACTIONS)
  for field, zeros in zip(
    jax.tree.leaves(item.batch), jax.tree.leaves(expected), strict=True
  ):
    assert (field.shape, field.dtype) == (zeros.shape, zeros.dtype)
