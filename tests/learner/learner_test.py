import csv
import json
import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from bmg import errors
from bmg.configs.schema import checks
from bmg.learner import checkpoints, training
from bmg.learner import learner as learner_lib
from tests.learner import fakes

_FRAMES_PER_UPDATE = 32


def _make(config, workdir, reader=None):
  reader = reader or fakes.FakeReader(config)
  return learner_lib.Learner(config, str(workdir), reader, fakes.NUM_ACTIONS)


def _saved(config, workdir):
  """(state, counters) of the newest checkpoint."""
  store = checkpoints.CheckpointStore(
    str(workdir / 'checkpoints'),
    config.learner,
    checkpoints.fingerprint(config, fakes.NUM_ACTIONS),
  )
  devices = jax.devices()[:1]
  template = training.TrainStep(config, fakes.NUM_ACTIONS, devices).init(0)
  restored = store.restore(template)
  store.close()
  return restored


def _steps(workdir):
  return sorted(map(int, os.listdir(workdir / 'checkpoints')))


def _rows(workdir):
  with open(workdir / 'learner.csv') as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize(
  'meta',
  [
    {'mode': 'none'},
    {'mode': 'bmg', 'inner_updates': 2, 'bootstrap_length': 2},
    {
      'mode': 'bmg',
      'bootstrap_length': 2,
      'target_data': 'online',
      'target_optimizer': {'name': 'adam'},
      'context': {'inputs': ('reward', 'td_error', 'value')},
    },
  ],
)
def test_a_resumed_run_is_bit_for_bit_that_without_a_stop(tmp_path, meta):
  config = fakes.tiny_config(
    meta=meta,
    agent={'auxiliary_heads': 1},
    replay={'online_batch': 2, 'replay_batch': 1},
  )
  updates_per_step = config.meta.updates_per_step
  extra = config.meta.num_bootstrap_batches * config.meta.bootstrap_batch
  fakes.run(_make(config, tmp_path / 'whole'), until=6)

  fakes.run(_make(config, tmp_path / 'parts'), until=2)
  state, counters = _saved(config, tmp_path / 'parts')
  assert state.num_updates == counters['num_updates'] == 2
  steps = 2 // updates_per_step
  rest = fakes.FakeReader(
    config, first_online=2 * 2, first_replay=2 * 1 + steps * extra
  )
  fakes.run(_make(config, tmp_path / 'parts', rest), until=6)

  whole, whole_counters = _saved(config, tmp_path / 'whole')
  parts, part_counters = _saved(config, tmp_path / 'parts')
  assert whole.num_updates == 6
  jax.tree.map(np.testing.assert_array_equal, whole, parts)
  # The wall clock alone may differ.
  assert part_counters.pop('seconds') > 0
  assert whole_counters.pop('seconds') > 0
  assert whole_counters == part_counters
  assert whole_counters['episodes'] == 6
  initial = _make(config, tmp_path / 'new').get_parameters(-1)[2]
  leaves = zip(
    jax.tree.leaves(initial), jax.tree.leaves(whole.params), strict=True
  )
  assert any((x != y).any() for x, y in leaves)


def test_a_stop_does_not_wait_for_the_compiler(tmp_path, monkeypatch):
  compiling, release = threading.Event(), threading.Event()

  def compile_step(self, state):
    compiling.set()
    assert release.wait(60)

  monkeypatch.setattr(training.TrainStep, 'compile', compile_step)
  learner = _make(fakes.tiny_config(), tmp_path)
  stop = threading.Event()

  def heartbeat():
    if compiling.is_set():
      stop.set()

  try:
    learner.run(stop, heartbeat)
    assert not release.is_set()
    assert _steps(tmp_path) == []
    assert learner.get_parameters(-1)[0] == 0
  finally:
    release.set()


def test_records_have_no_gap_and_no_repeat_across_a_stop(tmp_path):
  config = fakes.tiny_config()
  fakes.run(_make(config, tmp_path), until=2)
  fakes.run(_make(config, tmp_path), until=6)
  rows = _rows(tmp_path)
  frames = [int(row['num_frames']) for row in rows]
  assert frames == [_FRAMES_PER_UPDATE * i for i in range(1, 7)]
  seconds = [float(row['seconds']) for row in rows]
  assert seconds == sorted(seconds)
  last = rows[-1]
  assert int(last['num_updates']) == 6
  assert float(last['time_left']) == 0
  # Online unrolls carry version 0: the lag is the number of updates.
  assert float(last['policy_lag_max']) == 5
  assert float(last['wait_insert']) == 0.25
  assert int(last['replay_size']) == 2
  # Games ended in unrolls 1, 3, 5, 7 before the stop took the reader back.
  assert float(last['episode_return']) == np.mean([1, 3, 1, 3, 5, 7])
  assert float(last['episode_length']) == 10 * float(last['episode_return'])
  for column in ('loss/total', 'loss/entropy', 'grad_norm', 'meta/discount'):
    assert np.isfinite(float(last[column]))
  assert not any(column.startswith('finite') for column in last)


def test_at_the_end_it_marks_the_run_finished_and_goes_on_serving(tmp_path):
  config = fakes.tiny_config()
  finished = tmp_path / 'state' / 'finished.json'
  learner = _make(config, tmp_path)
  stop = threading.Event()
  thread = threading.Thread(target=learner.run, args=(stop, lambda: None))
  thread.start()
  for _ in range(600):
    if finished.exists():
      break
    thread.join(0.1)
  assert thread.is_alive()
  assert json.loads(finished.read_text()) == {
    'num_frames': 192,
    'num_updates': 6,
  }
  version, num_frames, _ = learner.get_parameters(5)
  assert (version, num_frames) == (6, 192)
  stop.set()
  thread.join(30)
  assert not thread.is_alive()
  assert _steps(tmp_path) == [6]


def test_a_finished_run_goes_on_only_when_it_gets_more_frames(tmp_path):
  config = fakes.tiny_config()
  finished = tmp_path / 'state' / 'finished.json'
  fakes.run(_make(config, tmp_path), until=6)
  fakes.run(_make(config, tmp_path), until=6)
  assert finished.exists()
  assert len(_rows(tmp_path)) == 6
  more = fakes.tiny_config(num_frames=32 * 9)
  fakes.run(_make(more, tmp_path), until=8)
  assert not finished.exists()
  fakes.run(_make(more, tmp_path), until=9)
  assert json.loads(finished.read_text())['num_frames'] == 288
  assert len(_rows(tmp_path)) == 9


class _PoisonedReader(fakes.FakeReader):
  """Its unrolls hold a NaN reward from the `bad` one on."""

  def __init__(self, config, bad):
    super().__init__(config)
    self._bad = bad

  def unroll(self, index):
    unroll = super().unroll(index)
    if self._bad <= index < 10**6:
      unroll.rewards[2] = np.nan
    return unroll


@pytest.mark.parametrize(
  ('mode', 'log_period_s'), [('none', 1e3), ('bmg', 1e-6)]
)
def test_nan_stops_the_run_and_leaves_the_last_good_checkpoint(
  tmp_path, mode, log_period_s
):
  config = fakes.tiny_config(
    meta={'mode': mode},
    learner={'checkpoint_period_s': 1e-6, 'log_period_s': log_period_s},
  )
  learner = _make(config, tmp_path, _PoisonedReader(config, bad=6))
  with pytest.raises(errors.FatalError) as error:
    learner.run(threading.Event(), lambda: None)
  # Updates 1 to 3 consume unrolls 0 to 5.
  message = str(error.value)
  assert 'loss/policy' in message
  assert 'grad_norm' in message
  assert 'loss/entropy' not in message
  assert 'not finite at update 4 (128 frames)' in message
  assert 'last good checkpoint is that of update 3' in message
  assert _steps(tmp_path) == [1, 2, 3]
  state, _ = _saved(config, tmp_path)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
  assert learner.get_parameters(-1) is None
  updates = [row['num_updates'] for row in _rows(tmp_path)]
  assert updates == (['1', '2', '3'] if log_period_s < 1 else [])


def test_nan_is_found_without_a_checkpoint_or_a_record_coming_up(tmp_path):
  config = fakes.tiny_config(learner={'log_period_s': 1e3})
  learner = _make(config, tmp_path, _PoisonedReader(config, bad=2))
  message = r'not finite at update 2 \(64 frames\).* no checkpoint yet'
  with pytest.raises(errors.FatalError, match=message):
    learner.run(threading.Event(), lambda: None)


def test_a_reader_that_times_out_is_waited_for(tmp_path):
  config = fakes.tiny_config()

  class Slow(fakes.FakeReader):
    timeouts = 0

    def online(self, num_unrolls, stop, heartbeat):
      self.timeouts += 1
      if self.timeouts % 2:
        raise TimeoutError("table 'online' gave nothing")
      return super().online(num_unrolls, stop, heartbeat)

  reader = Slow(config)
  fakes.run(_make(config, tmp_path, reader), until=6)
  assert _steps(tmp_path) == [6]
  assert reader.timeouts >= 12
  assert reader.closed


@pytest.mark.parametrize('updates_before', [0, 3])
def test_an_error_of_the_reader_ends_the_run(tmp_path, updates_before):
  config = fakes.tiny_config()

  class Broken(fakes.FakeReader):
    reads = 0

    def replay(self, num_unrolls, stop, heartbeat):
      self.reads += 1
      if self.reads <= updates_before:
        return super().replay(num_unrolls, stop, heartbeat)
      # Until the good batches are learned from.
      while learner.get_parameters(-1)[0] < updates_before:
        heartbeat()
      raise ValueError('wrong shape')

  reader = Broken(config)
  learner = _make(config, tmp_path, reader)
  with pytest.raises(ValueError, match='wrong shape'):
    fakes.run(learner, until=6)
  assert reader.closed
  # What was learned before it is saved.
  assert _steps(tmp_path) == ([updates_before] if updates_before else [])
  assert not [t for t in threading.enumerate() if t.name == 'prefetch']


def test_stop_ends_a_wait_for_data(tmp_path):
  config = fakes.tiny_config()

  class Empty(fakes.FakeReader):
    def online(self, num_unrolls, stop, heartbeat):
      while not stop.wait(0.01):
        heartbeat()

  stop = threading.Event()
  threading.Timer(0.5, stop.set).start()
  _make(config, tmp_path, Empty(config)).run(stop, lambda: None)
  assert _steps(tmp_path) == []


def test_replay_is_saved_at_a_stop_if_so_configured(tmp_path):
  config = fakes.tiny_config()
  reader = fakes.FakeReader(config)
  fakes.run(_make(config, tmp_path / 'without', reader), until=1)
  assert reader.checkpointed_after is None
  config = fakes.tiny_config(replay={'checkpoint': True})
  reader = fakes.FakeReader(config)
  fakes.run(_make(config, tmp_path / 'with', reader), until=1)
  assert reader.checkpointed_after == config.launch.grace_s


def test_a_replay_that_cannot_be_saved_is_reported(tmp_path):
  config = fakes.tiny_config(replay={'checkpoint': True})

  class Stuck(fakes.FakeReader):
    def checkpoint(self, timeout):
      raise TimeoutError('no answer')

  with pytest.raises(errors.FatalError, match='replay is not: no answer'):
    fakes.run(_make(config, tmp_path, Stuck(config)), until=1)
  assert _steps(tmp_path) == [1]


def test_training_survives_a_full_disk_but_not_at_the_last_save(small_disk):
  config = fakes.tiny_config(
    learner={'checkpoint_period_s': 1e-6}, num_frames=32 * 1000
  )
  fakes.run(_make(config, small_disk), until=1)
  assert _steps(small_disk) == [1]
  free = os.statvfs(small_disk)
  ballast = free.f_bavail * free.f_frsize - 4096
  (small_disk / 'ballast').write_bytes(b'x' * ballast)
  learner = _make(config, small_disk)
  with pytest.raises(errors.FatalError) as error:
    fakes.run(learner, until=5)
  assert learner.get_parameters(-1)[0] == 5
  assert 'cannot save checkpoint 5 of ' in str(error.value)
  assert 'No space left on device' in str(error.value)
  assert 'last good checkpoint is that of update 1' in str(error.value)
  assert _steps(small_disk) == [1]
  assert _saved(config, small_disk)[1]['num_updates'] == 1


def test_asks_for_no_more_devices_than_there_are(tmp_path):
  config = fakes.tiny_config(learner={'num_devices': 999})
  with pytest.raises(checks.ConfigError, match=r'learner.num_devices = 999'):
    _make(config, tmp_path)


def test_hosts_that_have_not_joined_are_missed(tmp_path):
  config = fakes.tiny_config(
    learner={'num_hosts': 2}, replay={'online_batch': 2, 'replay_batch': 2}
  )
  message = r'learner.num_hosts = 2: 1 of them came together'
  with pytest.raises(checks.ConfigError, match=message):
    _make(config, tmp_path)


def test_a_changed_network_is_refused(tmp_path):
  config = fakes.tiny_config()
  fakes.run(_make(config, tmp_path), until=1)
  other = fakes.tiny_config(agent={'head_hidden': (16,)})
  with pytest.raises(errors.FatalError, match=r'agent\.head_hidden'):
    _make(other, tmp_path)


def test_imports_no_launcher_replay_server_or_tensorflow():
  code = (
    'import sys, bmg.learner.learner; '
    "print([x for x in ('launchpad', 'reverb', 'tensorflow') "
    'if x in sys.modules])'
  )
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert result.stdout.strip() == '[]'


def test_an_update_that_overflows_is_not_saved(tmp_path):
  config = fakes.tiny_config(
    loss={'reduction': 'sum'},
    optimizer={
      'name': 'sgd',
      'learning_rate': 3e38,
      'schedule': 'constant',
      'max_grad_norm': 1e6,
    },
    learner={'checkpoint_period_s': 1e-6},
  )
  # Loss and gradient of the first update are finite, the parameters it makes
  # are not.
  learner = _make(config, tmp_path)
  message = r'state\.params.* is not finite after update 1; it was not saved'
  with pytest.raises(errors.FatalError, match=message):
    learner.run(threading.Event(), lambda: None)
  assert _steps(tmp_path) == []
  assert learner.get_parameters(-1) is None
