import collections
import threading

import numpy as np
import psutil
import pytest
import reverb

from bmg import errors
from bmg.agents import types
from bmg.configs import schema
from bmg.replay import tables, writer
from tests.replay.conftest import NUM_ACTIONS, table_sizes


def _no_heartbeat():
  pass


def _versions(address, table, num_samples):
  """Versions of unrolls, as Reverb's own client samples them."""
  samples = reverb.Client(address).sample(
    table, num_samples, emit_timesteps=False
  )
  position = types.Unroll._fields.index('params_version')
  return [int(sample.data[position]) for sample in samples]


def test_the_queue_gives_each_unroll_once_and_in_order(
  make_config, make_unrolls, serve, stop
):
  config = make_config(online_capacity=6)
  address = serve(config)
  replay_writer = writer.ReplayWriter(address, config)
  replay_writer.write(make_unrolls(config, 0, 3), stop, _no_heartbeat)
  replay_writer.write(make_unrolls(config, 3, 6), stop, _no_heartbeat)
  assert table_sizes(address) == {'online': 6, 'replay': 6}
  assert _versions(address, 'online', 6) == list(range(6))
  assert table_sizes(address) == {'online': 0, 'replay': 6}


def test_replay_drops_the_oldest_and_samples_uniformly(
  make_config, make_unrolls, serve, stop
):
  config = make_config(online_capacity=30, replay_capacity=10)
  address = serve(config)
  replay_writer = writer.ReplayWriter(address, config)
  replay_writer.write(make_unrolls(config, 0, 25), stop, _no_heartbeat)
  assert table_sizes(address) == {'online': 25, 'replay': 10}
  counts = collections.Counter(_versions(address, 'replay', 2000))
  assert sorted(counts) == list(range(15, 25))
  # Five standard deviations of a binomial around 200.
  assert all(133 < count < 267 for count in counts.values())


def test_replay_gives_nothing_before_its_minimum(
  make_config, make_unrolls, serve, stop
):
  config = make_config(min_replay_size=4)
  address = serve(config)
  replay_writer = writer.ReplayWriter(address, config)
  replay_writer.write(make_unrolls(config, 0, 3), stop, _no_heartbeat)
  sampled = threading.Event()

  def sample():
    _versions(address, 'replay', 1)
    sampled.set()

  threading.Thread(target=sample, daemon=True).start()
  assert not sampled.wait(0.5)
  replay_writer.write(make_unrolls(config, 3, 4), stop, _no_heartbeat)
  assert sampled.wait(10)


def test_without_replay_there_is_no_such_table(
  make_config, make_unrolls, serve, stop
):
  config = make_config(replay_batch=0)
  address = serve(config)
  writer.ReplayWriter(address, config).write(
    make_unrolls(config, 0, 2), stop, _no_heartbeat
  )
  assert table_sizes(address) == {'online': 2}


def test_check_unroll_names_the_field(make_config):
  spec = tables.unroll_spec(make_config(), NUM_ACTIONS)
  tables.check_unroll(spec, spec)
  wrong_type = spec._replace(rewards=spec.rewards.astype(np.float64))
  with pytest.raises(errors.FatalError, match=r'rewards is float64\[5\]'):
    tables.check_unroll(wrong_type, spec)
  wrong_shape = spec._replace(frames=spec.frames[1:])
  with pytest.raises(errors.FatalError, match=r'has uint8\[9, 8, 6, 1\]'):
    tables.check_unroll(wrong_shape, spec)


@pytest.mark.system
def test_frames_are_stored_once_for_both_tables(
  make_config, make_unrolls, serve_process, stop
):
  config = make_config(online_capacity=200, replay_capacity=200)
  config = schema.from_config_dict(
    schema.to_dict(config)
    | {'env': {'protocol': 'common84', 'height': 420, 'width': 420}}
  )
  server = serve_process(config)
  process = psutil.Process(server.process.pid)
  replay_writer = writer.ReplayWriter(server.address, config)
  replay_writer.write(make_unrolls(config, 0, 5), stop, _no_heartbeat)
  before = process.memory_info().rss
  for start in range(5, 85, 5):
    unrolls = make_unrolls(config, start, start + 5)
    replay_writer.write(unrolls, stop, _no_heartbeat)
  grown = process.memory_info().rss - before
  assert server.sizes() == {'online': 85, 'replay': 85}
  # Noise cannot be compressed: 80 unrolls of 9 frames take 127 MB.
  assert 0.8 < grown / (80 * unrolls[0].frames.nbytes) < 1.5
