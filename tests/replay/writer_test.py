import threading
import time

import numpy as np
import pytest
import reverb

from bmg import errors
from bmg.replay import writer
from tests.replay.conftest import Calls, table_sizes, wait_until


def _in_thread(function, *args):
  """Runs a call in a thread; returns the thread and a list for its result."""
  results = []
  thread = threading.Thread(
    target=lambda: results.append(function(*args)), daemon=True
  )
  thread.start()
  return thread, results


def test_a_full_queue_blocks_the_writer(make_config, make_unrolls, serve, stop):
  config = make_config(online_capacity=6)
  address = serve(config)
  replay_writer = writer.ReplayWriter(address, config)
  heartbeat = Calls()
  waited = replay_writer.write(make_unrolls(config, 0, 6), stop, heartbeat)
  assert waited < 1.0
  thread, results = _in_thread(
    replay_writer.write, make_unrolls(config, 6, 8), stop, heartbeat
  )
  thread.join(1.5)
  assert thread.is_alive()
  assert table_sizes(address)['online'] == 6
  assert heartbeat.count >= 3
  client = reverb.Client(address)
  assert len(list(client.sample('online', 2, emit_timesteps=False))) == 2
  thread.join(5)
  assert results
  assert results[0] > 1.0
  wait_until(lambda: table_sizes(address)['online'] == 6, 'both are in')


def test_stop_ends_a_blocked_write(make_config, make_unrolls, serve, stop):
  config = make_config(online_capacity=6)
  replay_writer = writer.ReplayWriter(serve(config), config)
  thread, _ = _in_thread(
    replay_writer.write, make_unrolls(config, 0, 9), stop, Calls()
  )
  thread.join(1.0)
  assert thread.is_alive()
  stop.set()
  thread.join(3)
  assert not thread.is_alive()
  replay_writer.close()


def test_stop_ends_a_write_without_a_server(make_config, make_unrolls, stop):
  config = make_config()
  replay_writer = writer.ReplayWriter('localhost:1', config)
  heartbeat = Calls()
  thread, _ = _in_thread(
    replay_writer.write, make_unrolls(config, 0, 2), stop, heartbeat
  )
  wait_until(lambda: heartbeat.count >= 2, 'it waits')
  stop.set()
  thread.join(5)
  assert not thread.is_alive()


def test_unrolls_of_another_configuration_are_refused(
  make_config, make_unrolls, stop
):
  config = make_config()
  (unroll,) = make_unrolls(config, 0, 1)
  replay_writer = writer.ReplayWriter('localhost:1', config)
  with pytest.raises(errors.FatalError, match='actions is int64'):
    replay_writer.write(
      [unroll._replace(actions=unroll.actions.astype(np.int64))], stop, Calls()
    )


def test_a_server_without_the_table_ends_the_writer(
  make_config, make_unrolls, serve, stop, monkeypatch
):
  monkeypatch.setattr(writer, '_SLICE_S', 0.05)
  address = serve(make_config(replay_batch=0))
  config = make_config()
  replay_writer = writer.ReplayWriter(address, config)
  with pytest.raises(RuntimeError, match='replay was not found'):
    replay_writer.write(make_unrolls(config, 0, 1), stop, Calls())


def test_a_long_wait_is_reported(
  make_config, make_unrolls, serve, stop, monkeypatch, caplog
):
  monkeypatch.setattr(writer, '_REPORT_PERIOD_S', 1.0)
  caplog.set_level('INFO')
  config = make_config(online_capacity=6)
  address = serve(config)
  replay_writer = writer.ReplayWriter(address, config)
  thread, _ = _in_thread(
    replay_writer.write, make_unrolls(config, 0, 9), stop, Calls()
  )
  wait_until(lambda: 'to insert unrolls' in caplog.text, 'the report')
  assert f'{address} answers; its queue has room for 0' in caplog.text
  stop.set()
  thread.join(3)


@pytest.mark.system
def test_the_writer_outlives_the_server(
  make_config, make_unrolls, serve_process, stop
):
  config = make_config()
  server = serve_process(config)
  replay_writer = writer.ReplayWriter(server.address, config)
  replay_writer.write(make_unrolls(config, 0, 2), stop, Calls())
  server.kill()
  thread, _ = _in_thread(
    replay_writer.write, make_unrolls(config, 2, 4), stop, Calls()
  )
  thread.join(1.0)
  assert thread.is_alive()
  server.start()
  thread.join(30)
  assert not thread.is_alive()
  assert server.sizes() == {'online': 2, 'replay': 2}


@pytest.mark.system
def test_the_writer_leaves_a_connection_that_leads_nowhere(
  make_config, make_unrolls, serve_process, stop, black_hole
):
  config = make_config()
  server = serve_process(config)
  hole = black_hole(server.port)
  replay_writer = writer.ReplayWriter(hole.address, config)
  replay_writer.write(make_unrolls(config, 0, 2), stop, Calls())
  hole.swallow()
  thread, _ = _in_thread(
    replay_writer.write, make_unrolls(config, 2, 4), stop, Calls()
  )
  time.sleep(1.0)
  assert thread.is_alive()
  # Stands for a name that now leads to another machine.
  replay_writer._address = server.address
  thread.join(20)
  assert not thread.is_alive()
  assert server.sizes() == {'online': 4, 'replay': 4}
