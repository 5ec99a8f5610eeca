"""What is compiled for one core, and what is left as it was."""

import os

import pytest

from experiments import devices


def test_compiling_sees_one_core_and_nothing_else_does():
  cores = os.sched_getaffinity(0)
  with devices.compiling_for_one_core():
    assert len(os.sched_getaffinity(0)) == 1
  assert os.sched_getaffinity(0) == cores


def test_cores_come_back_after_an_error():
  cores = os.sched_getaffinity(0)
  one_core = devices.compiling_for_one_core()
  with pytest.raises(ValueError, match='compile'), one_core:
    raise ValueError('does not compile')
  assert os.sched_getaffinity(0) == cores
