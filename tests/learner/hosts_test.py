"""Two processes with two devices each, as one learner."""

import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.learner import checkpoints, hosts
from bmg.learner import learner as learner_lib
from tests.learner import fakes

_DEADLINE_S = 120
_NUM_UPDATES = 6
_TINY = {
  'num_frames': 64 * _NUM_UPDATES,
  'replay': {'online_batch': 4, 'replay_batch': 4},
}
_SETTINGS = {
  'log_period_s': 1e-6,
  'num_hosts': 2,
  'num_devices': 2,
  'host_timeout_s': 10.0,
}
_ENDLESS = {'num_frames': 10**9}
_BMG = {'meta': {'mode': 'bmg', 'bootstrap_length': 3, 'bootstrap_batch': 4}}


@pytest.fixture
def team(tmp_path):
  """Starts and ends the processes of both hosts."""
  with contextlib.ExitStack() as stack:
    yield _Team(tmp_path, stack)


class _Team:
  def __init__(self, workdir, stack):
    self.workdir = workdir
    self._stack = stack
    self._processes = {}

  def start(self, indices=(0, 1), **task):
    with socket.create_server(('', 0)) as probe:
      address = f'localhost:{probe.getsockname()[1]}'
    config = _TINY | {'learner': _SETTINGS} | task.pop('config', {})
    for index in indices:
      (self.workdir / f'host{index}-updates').write_text('0')
      tasks = {name: values[index] for name, values in task.items()}
      self._processes[index] = self._start(
        dict(index=index, address=address, config=config) | tasks
      )

  def _start(self, task):
    task['workdir'] = str(self.workdir)
    flags = os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count='
    process = subprocess.Popen(
      [sys.executable, '-m', 'tests.learner.host_process', json.dumps(task)],
      env=os.environ
      | {
        'XLA_FLAGS': flags + '2',
        # As in a run.
        'PYTHONFAULTHANDLER': '1',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    self._stack.callback(process.wait)
    self._stack.callback(process.kill)
    return process

  def signal(self, index, sig):
    self._processes[index].send_signal(sig)

  def await_updates(self, number):
    """Waits until every host has made so many updates."""
    deadline = time.monotonic() + _DEADLINE_S
    while min(self._updates(index) for index in self._processes) < number:
      for process in self._processes.values():
        assert process.poll() is None, process.communicate()[0]
      assert time.monotonic() < deadline
      time.sleep(0.05)

  def _updates(self, index):
    return int((self.workdir / f'host{index}-updates').read_text() or 0)

  def end(self, index, timeout=_DEADLINE_S):
    """Waits for the end of a host; returns its status and what it printed."""
    output, _ = self._processes[index].communicate(timeout=timeout)
    return self._processes[index].returncode, output

  def file(self, index, name):
    return self.workdir / f'host{index}-{name}'


def _checkpoint(workdir):
  """(parameters, counters) of the newest checkpoint."""
  params, counters = checkpoints.load_params(str(workdir / 'checkpoints'))
  return np.concatenate([*map(np.ravel, jax.tree.leaves(params))]), counters


def _recorded_updates(workdir):
  with open(workdir / 'learner.csv') as file:
    return [int(row['num_updates']) for row in csv.DictReader(file)]


def _alone(workdir, until):
  """The same run by one process with one device: parameters, counters."""
  config = fakes.tiny_config(**_TINY)
  learner = learner_lib.Learner(
    config, str(workdir), fakes.FakeReader(config), fakes.NUM_ACTIONS
  )
  fakes.run(learner, until)
  return _checkpoint(workdir)


def test_hosts_learn_what_one_process_learns_also_across_a_stop(
  team, tmp_path_factory
):
  # Host 1 is told to stop while it waits for host 0, which has no more data.
  team.start(starve_after=(2, 10**9))
  team.await_updates(2)
  team.signal(1, signal.SIGTERM)
  assert team.end(1)[0] == 0
  status, output = team.end(0)
  assert status == 1
  assert 'another host was told to stop' in output
  assert _checkpoint(team.workdir)[1]['num_updates'] == 2

  # All of them go on from there, to the end, and then wait for the stop.
  team.start(first_step=(2, 2))
  team.await_updates(_NUM_UPDATES)
  team.signal(0, signal.SIGTERM)
  team.signal(1, signal.SIGTERM)
  assert team.end(0)[0] == 0
  assert team.end(1)[0] == 0

  params, counters = _checkpoint(team.workdir)
  alone = tmp_path_factory.mktemp('alone')
  expected, expected_counters = _alone(alone, until=_NUM_UPDATES)
  np.testing.assert_allclose(params, expected, rtol=1e-4, atol=1e-5)
  for index in (0, 1):
    served = np.load(team.file(index, 'params.npy'))
    np.testing.assert_array_equal(served, params)
  assert counters.pop('seconds') > 0
  assert expected_counters.pop('seconds') > 0
  assert counters == expected_counters
  assert counters['episodes'] == 4 * _NUM_UPDATES / 2
  finished = json.loads((team.workdir / 'state' / 'finished.json').read_text())
  assert finished == {'num_frames': 64 * 6, 'num_updates': 6}
  assert _recorded_updates(team.workdir) == [1, 2, 3, 4, 5, 6]


def test_a_stop_amid_steps_takes_all_hosts_to_the_same_one(team):
  team.start(config=_ENDLESS)
  team.await_updates(3)
  team.signal(0, signal.SIGTERM)
  assert team.end(0)[0] == 0
  assert team.end(1)[0] == 1
  params, counters = _checkpoint(team.workdir)
  assert counters['num_updates'] >= 3
  for index in (0, 1):
    served = np.load(team.file(index, 'params.npy'))
    np.testing.assert_array_equal(served, params)


def test_hosts_make_one_batch_with_the_online_unrolls_marked(team):
  r = 10**6
  team.start(layout_only=(True, True), config=_BMG)
  for index in (0, 1):
    assert team.end(index)[0] == 0
    layouts = json.loads(team.file(index, 'layouts').read_text())
    assert [layout['num_devices'] for layout in layouts] == [2, 4]
    for layout in layouts:
      own = np.array(layout['own'])
      assert sorted(own[0]) == [0, 1, 2, 3, r, r + 1, r + 2, r + 3]
      np.testing.assert_array_equal(layout['own_is_online'], own < r)
      assert np.shape(layout['bootstrap']) == (2, 4)
      drawn = sorted(np.ravel(layout['bootstrap']))
      assert drawn == [r + i for i in range(4, 12)]
      assert not np.any(layout['bootstrap_is_online'])


@pytest.mark.parametrize(
  ('victim', 'starve_after', 'cause'),
  [
    # JAX itself notices that its service is gone.
    (0, 10**9, 'the leader task was preempted/died|one of them has died'),
    # The collective breaks, unless host 1 died between two of them.
    (1, 10**9, 'LostHostError: (.* if one of them has died|no sign of life)'),
    # Host 0 waits for host 1 where nothing breaks.
    (1, 3, 'LostHostError: no sign of life from learner host 1 for 10 s'),
  ],
)
def test_a_host_that_is_killed_takes_the_other_with_it(
  team, victim, starve_after, cause
):
  team.start(config=_ENDLESS, starve_after=(10**9, starve_after))
  team.await_updates(3)
  team.signal(victim, signal.SIGKILL)
  status, output = team.end(1 - victim, timeout=60)
  assert status != 0
  assert re.search(cause, output), output
  # No dump of threads follows it.
  assert 'Current thread' not in output


@pytest.mark.parametrize('index', [0, 1])
def test_does_not_wait_for_ever_for_the_others_to_come(team, index):
  team.start(indices=(index,), join_timeout_s=(1.0, 1.0))
  status, output = team.end(index, timeout=60)
  assert status == 1
  assert 'not all of the 2 learner hosts met at localhost:' in output
  assert 'within 1 s' in output


def test_a_port_that_is_taken_is_reported():
  config = schema.Learner(num_hosts=2)
  with (
    socket.create_server(('', 0)) as taken,
    pytest.raises(OSError, match='Address already in use'),
  ):
    hosts.join(config, index=0, address=f'host:{taken.getsockname()[1]}')


def test_one_host_needs_no_other():
  config = fakes.tiny_config()
  team = hosts.join(config.learner, index=0, address='')
  stop = threading.Event()
  assert team.is_chief
  assert team.exchange('word', lambda: None) == ['word']
  assert team.any_stop(stop) is stop
  team.leave(stop, lambda: None)


@pytest.mark.parametrize(
  ('group', 'field'),
  [
    ('replay', 'online_batch'),
    ('replay', 'replay_batch'),
    ('meta', 'bootstrap_batch'),
  ],
)
def test_every_batch_must_be_divisible_among_the_hosts(group, field):
  config = _TINY | _BMG | {'learner': _SETTINGS}
  config = config | {group: config[group] | {field: 5}}
  with pytest.raises(
    checks.ConfigError, match=rf'{group}\.{field} = 5: must be divisible by'
  ):
    fakes.tiny_config(**config)
