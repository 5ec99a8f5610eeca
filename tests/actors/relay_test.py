import threading
import time

import pytest

from bmg.actors import relay


class _Source:
  """A learner whose answers take a moment; counts its questions."""

  def __init__(self):
    self.version = 0
    self.error = None
    self.questions = []

  def get_parameters(self, unless_version):
    self.questions.append(unless_version)
    time.sleep(0.02)
    if self.error:
      raise self.error
    if unless_version == self.version:
      return None
    return self.version, 100 * self.version, {'w': self.version}


def _age(parameter_relay):
  """Lets its last answer grow old."""
  parameter_relay._asked_at -= 1.0


def test_many_clients_cost_one_question():
  source = _Source()
  parameter_relay = relay.ParameterRelay(source, 0.1)
  answers = []
  clients = [
    threading.Thread(
      target=lambda: answers.append(parameter_relay.get_parameters(-1))
    )
    for _ in range(20)
  ]
  for client in clients:
    client.start()
  for client in clients:
    client.join(10)
  assert answers == [(0, 0, {'w': 0})] * 20
  assert source.questions == [-1]


def test_a_version_is_fetched_once_and_none_is_missed():
  source = _Source()
  parameter_relay = relay.ParameterRelay(source, 0.1)
  assert parameter_relay.get_parameters(-1) == (0, 0, {'w': 0})
  assert parameter_relay.get_parameters(0) is None
  _age(parameter_relay)
  assert parameter_relay.get_parameters(0) is None
  source.version = 7
  _age(parameter_relay)
  assert parameter_relay.get_parameters(0) == (7, 700, {'w': 7})
  # The learner went back to a checkpoint.
  source.version = 3
  _age(parameter_relay)
  assert parameter_relay.get_parameters(7) == (3, 300, {'w': 3})
  assert source.questions == [-1, 0, 0, 7]


def test_the_period_bounds_how_often_it_asks():
  source = _Source()
  parameter_relay = relay.ParameterRelay(source, 3600.0)
  assert parameter_relay.get_parameters(-1) == (0, 0, {'w': 0})
  source.version = 1
  assert parameter_relay.get_parameters(0) is None
  parameter_relay._asked_at -= 3601.0
  assert parameter_relay.get_parameters(0) == (1, 100, {'w': 1})


def test_clients_outlive_the_learner():
  source = _Source()
  parameter_relay = relay.ParameterRelay(source, 0.1)
  source.error = TimeoutError('gone')
  with pytest.raises(TimeoutError, match='gone'):
    parameter_relay.get_parameters(-1)
  source.error = None
  assert parameter_relay.get_parameters(-1) == (0, 0, {'w': 0})
  source.error = TimeoutError('gone')
  _age(parameter_relay)
  assert parameter_relay.get_parameters(0) is None
  assert parameter_relay.get_parameters(-1) == (0, 0, {'w': 0})
