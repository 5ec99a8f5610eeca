import threading
import time

import pytest

from bmg.learner import heartbeats


def test_there_are_signs_of_life_until_the_function_ends(monkeypatch):
  monkeypatch.setattr(heartbeats, '_SLICE_S', 0.01)
  beats = threading.Semaphore(0)

  def function():
    for _ in range(3):
      assert beats.acquire(timeout=60)

  stop = threading.Event()
  assert heartbeats.call(function, stop, beats.release, limit_s=60.0)


def test_a_function_that_hangs_is_left_without_signs_of_life(monkeypatch):
  monkeypatch.setattr(heartbeats, '_SLICE_S', 0.01)
  stop, release = threading.Event(), threading.Event()
  beats = []

  def function():
    # Much longer than the limit.
    release.wait(1.0)

  def heartbeat():
    beats.append(time.monotonic())

  start = time.monotonic()
  assert heartbeats.call(function, stop, heartbeat, limit_s=0.2)
  assert beats
  assert beats[-1] - start < 0.6


def test_a_stop_leaves_the_function_behind():
  stop, release = threading.Event(), threading.Event()
  ended = threading.Event()

  def function():
    release.wait(60)
    ended.set()

  assert not heartbeats.call(function, stop, stop.set, limit_s=60.0)
  assert not ended.is_set()
  release.set()
  assert ended.wait(60)


def test_errors_of_the_function_are_raised():
  def function():
    raise ValueError('out of memory')

  with pytest.raises(ValueError, match='out of memory'):
    heartbeats.call(function, threading.Event(), lambda: None, limit_s=60.0)
