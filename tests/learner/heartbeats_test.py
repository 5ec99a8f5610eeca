import threading

import pytest

from learner import heartbeats


@pytest.fixture(autouse=True)
def _short_period(monkeypatch):
  monkeypatch.setattr(heartbeats, '_PERIOD_S', 0.01)


def test_the_heart_beats_while_the_body_runs_and_not_after():
  beats = threading.Semaphore(0)
  with heartbeats.kept_up(beats.release, limit_s=60.0):
    for _ in range(3):
      assert beats.acquire(timeout=30.0)
  while beats.acquire(blocking=False):
    pass
  assert not beats.acquire(timeout=0.1)


def test_a_body_that_takes_too_long_is_left_in_silence():
  beats = threading.Semaphore(0)
  with heartbeats.kept_up(beats.release, limit_s=0.1):
    assert beats.acquire(timeout=30.0)
    while beats.acquire(timeout=0.3):
      pass
    assert not beats.acquire(timeout=0.3)


def test_an_error_in_the_body_ends_it_too():
  before = threading.active_count()
  with (
    pytest.raises(ValueError, match='mine'),
    heartbeats.kept_up(lambda: None, limit_s=60.0),
  ):
    raise ValueError('mine')
  assert threading.active_count() == before
