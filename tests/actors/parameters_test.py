"""Fetching parameters beside the loop that uses them."""

import threading
import time

import numpy as np
import pytest

from bmg.actors import parameters
from tests.actors import fakes


def make_answer(version):
  return (version, 10 * version, {'linear': {'w': np.full(3, version)}})


def test_latest_follows_every_other_version_up_and_down():
  source = fakes.FakeSource(make_answer(5))
  with parameters.ParameterFetcher(source) as fetcher:
    assert fetcher.wait_first(threading.Event(), fakes.nothing)
    for version in (6, 2, 9):
      source.answer = make_answer(version)
      fetcher.request()
      fakes.until(lambda v=version: fetcher.latest().version == v)
      latest = fetcher.latest()
      assert latest.num_frames == 10 * version
      np.testing.assert_array_equal(latest.params['linear']['w'], [version] * 3)
  known = [version for _, version in source.calls]
  assert known == [-1, 5, 6, 2]


def test_without_a_request_nothing_is_fetched():
  source = fakes.FakeSource(make_answer(5))
  with parameters.ParameterFetcher(source) as fetcher:
    fetcher.wait_first(threading.Event(), fakes.nothing)
    source.answer = make_answer(6)
    time.sleep(0.2)
    assert fetcher.latest().version == 5
    assert len(source.calls) == 1


def test_nothing_new_keeps_what_is_there():
  source = fakes.FakeSource(make_answer(5))
  with parameters.ParameterFetcher(source) as fetcher:
    fetcher.wait_first(threading.Event(), fakes.nothing)
    before = fetcher.latest()
    fetcher.request()
    fakes.until(lambda: len(source.calls) == 2)
    time.sleep(0.05)
    assert fetcher.latest() is before


def test_neither_request_nor_latest_waits_for_a_slow_source():
  source = fakes.FakeSource(make_answer(5))
  with parameters.ParameterFetcher(source) as fetcher:
    fetcher.wait_first(threading.Event(), fakes.nothing)
    source.delay_s = 5.0
    source.answer = make_answer(6)
    fetcher.request()
    fakes.until(lambda: len(source.calls) == 2)
    started = time.monotonic()
    for _ in range(100):
      fetcher.request()
      assert fetcher.latest().version == 5
    # Only a call that waits for the source comes near its 5 seconds.
    assert time.monotonic() - started < 2.5


def test_failures_are_retried_with_growing_delay_and_then_forgotten():
  source = fakes.FakeSource(TimeoutError('no learner'))
  with parameters.ParameterFetcher(source, retry_delay_s=0.05) as fetcher:
    fakes.until(lambda: len(source.calls) == 4)
    source.answer = make_answer(1)
    assert fetcher.wait_first(threading.Event(), fakes.nothing)
  times = [when for when, _ in source.calls]
  gaps = np.diff(times)
  # The delays double, and a busy machine can only lengthen them.
  assert (gaps >= 0.05 * 2.0 ** np.arange(len(gaps))).all()


def test_an_unexpected_error_does_not_end_the_fetching():
  source = fakes.FakeSource(ValueError('odd'))
  with parameters.ParameterFetcher(source, retry_delay_s=0.01) as fetcher:
    fakes.until(lambda: len(source.calls) >= 2)
    source.answer = make_answer(1)
    assert fetcher.wait_first(threading.Event(), fakes.nothing)


def test_a_learner_without_parameters_is_asked_again():
  source = fakes.FakeSource(None)
  with parameters.ParameterFetcher(source, retry_delay_s=0.01) as fetcher:
    fakes.until(lambda: len(source.calls) >= 3)
    with pytest.raises(RuntimeError, match='No parameters'):
      fetcher.latest()
    source.answer = make_answer(0)
    assert fetcher.wait_first(threading.Event(), fakes.nothing)
    assert fetcher.latest().version == 0


def test_waiting_for_the_first_says_for_what(monkeypatch, caplog):
  monkeypatch.setattr(parameters, '_REPORT_PERIOD_S', 0.2)
  caplog.set_level('INFO', logger='absl')
  stop = threading.Event()
  beats = []

  def heartbeat():
    beats.append(1)
    if 'first parameters from the learner' in caplog.text:
      stop.set()
    assert len(beats) < 100

  with parameters.ParameterFetcher(
    fakes.FakeSource(TimeoutError('no learner'))
  ) as fetcher:
    assert not fetcher.wait_first(stop, heartbeat)
  assert "TimeoutError('no learner')" in caplog.text


def test_leaving_ends_the_thread():
  with parameters.ParameterFetcher(fakes.FakeSource(make_answer(0))) as fetcher:
    fetcher.wait_first(threading.Event(), fakes.nothing)
    assert fetcher._thread.is_alive()
  assert not fetcher._thread.is_alive()
