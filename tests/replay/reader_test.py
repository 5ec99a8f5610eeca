import collections
import socket
import threading
import time

import numpy as np
import pytest
import reverb

from bmg import errors
from bmg.replay import reader, table_reader, writer
from tests.replay.conftest import NUM_ACTIONS, Calls, table_sizes, wait_until


def _write(address, config, unrolls, stop):
  replay_writer = writer.ReplayWriter(address, config)
  replay_writer.write(unrolls, stop, Calls())
  return replay_writer


@pytest.fixture
def open_reader():
  readers = []

  def start(address, config):
    readers.append(reader.ReplayReader([address], config, NUM_ACTIONS))
    return readers[-1]

  yield start
  for one in readers:
    one.close()
    # Its last question to a dead server must not end in the interpreter's exit.
    for monitor in one._monitors:
      monitor._thread.join(5)


def test_batches_are_stacked_unrolls(
  make_config, make_unrolls, serve, stop, open_reader
):
  config = make_config()
  address = serve(config)
  unrolls = make_unrolls(config, 0, 4)
  _write(address, config, unrolls, stop)
  replay_reader = open_reader(address, config)
  heartbeat = Calls()
  for start in (0, 2):
    batch = replay_reader.online(2, stop, heartbeat)
    for field, first, second in zip(
      batch, unrolls[start], unrolls[start + 1], strict=True
    ):
      np.testing.assert_array_equal(field, np.stack([first, second]))
      assert field.dtype == first.dtype
  assert heartbeat.count >= 4
  drawn = replay_reader.replay(50, stop, heartbeat)
  assert drawn.frames.shape == (50, 9, 8, 6, 1)
  for version, frames in zip(drawn.params_version, drawn.frames, strict=True):
    np.testing.assert_array_equal(frames, unrolls[version].frames)


def test_every_online_unroll_comes_once(
  make_config, make_unrolls, serve, stop, open_reader
):
  config = make_config()
  address = serve(config)
  replay_reader = open_reader(address, config)
  thread = threading.Thread(
    target=_write, args=(address, config, make_unrolls(config, 0, 40), stop)
  )
  thread.start()
  versions = [
    version
    for _ in range(20)
    for version in replay_reader.online(2, stop, Calls()).params_version
  ]
  thread.join()
  assert versions == list(range(40))


def test_little_is_read_ahead(
  make_config, make_unrolls, serve, stop, open_reader
):
  """What waits in the reader grows old; the queue should hold it instead."""
  config = make_config(online_batch=2, online_capacity=20)
  address = serve(config)
  open_reader(address, config)
  _write(address, config, make_unrolls(config, 0, 20), stop)
  time.sleep(1.0)
  # A batch in its queue, one in its hand, one or two on their way.
  assert table_sizes(address)['online'] >= 20 - 2 - 1 - 2


def test_a_timeout_says_what_is_missing_and_keeps_what_came(
  make_config, make_unrolls, serve, stop, open_reader
):
  config = make_config(min_replay_size=5)
  address = serve(config)
  replay_reader = open_reader(address, config)
  replay_writer = _write(address, config, make_unrolls(config, 0, 1), stop)
  wait_until(lambda: replay_reader.sizes()['replay'] == 1, 'it is seen')
  with pytest.raises(
    reader.ReplayTimeout, match=r"'replay' gave 0 of 4 .*'replay' holds 1.* 5;"
  ):
    replay_reader.replay(4, stop, Calls())
  with pytest.raises(reader.ReplayTimeout, match="'online' gave 1 of 2"):
    replay_reader.online(2, stop, Calls())
  replay_writer.write(make_unrolls(config, 1, 2), stop, Calls())
  batch = replay_reader.online(2, stop, Calls())
  assert list(batch.params_version) == [0, 1]


def test_replay_fills_though_the_queue_is_smaller(
  make_config, make_unrolls, serve, stop, open_reader
):
  """A queue of 6 would stop a writer long before replay holds its 20."""
  config = make_config(min_replay_size=20, read_timeout_s=20.0)
  address = serve(config)
  replay_reader = open_reader(address, config)
  written = []

  def act():
    replay_writer = writer.ReplayWriter(address, config)
    for start in range(0, 200, 2):
      replay_writer.write(make_unrolls(config, start, start + 2), stop, Calls())
      written.append(start)

  threading.Thread(target=act, daemon=True).start()
  assert replay_reader.replay(4, stop, Calls()) is not None
  # The queue holds the writer back again.
  time.sleep(1.0)
  assert len(written) < 100
  # A few from before were ready; then the queue is whole again.
  batches = [replay_reader.online(2, stop, Calls()) for _ in range(6)]
  versions = np.concatenate([batch.params_version for batch in batches])[4:]
  assert list(np.diff(versions)) == [1] * 7


def test_stop_ends_a_read(make_config, serve, stop, open_reader):
  config = make_config(read_timeout_s=60.0)
  replay_reader = open_reader(serve(config), config)
  threading.Timer(0.5, stop.set).start()
  start = time.monotonic()
  assert replay_reader.online(2, stop, Calls()) is None
  assert time.monotonic() - start < 5


def test_sizes_are_minus_one_until_a_server_answers(
  make_config, stop, open_reader
):
  config = make_config()
  replay_reader = open_reader('localhost:1', config)
  assert replay_reader.sizes() == {'online': -1, 'replay': -1}
  with pytest.raises(reader.ReplayTimeout, match='has not answered'):
    replay_reader.online(2, stop, Calls())


def test_unrolls_of_another_configuration_are_refused(
  make_config, make_unrolls, serve, stop, open_reader
):
  config = make_config()
  address = serve(config)
  _write(address, config, make_unrolls(config, 0, 2), stop)
  replay_reader = reader.ReplayReader([address], config, NUM_ACTIONS + 1)
  with pytest.raises(errors.FatalError, match='behaviour_logits'):
    replay_reader.online(2, stop, Calls())
  replay_reader.close()


def test_a_checkpoint_has_a_deadline(make_config, open_reader):
  with socket.create_server(('127.0.0.1', 0)) as silent:
    address = f'127.0.0.1:{silent.getsockname()[1]}'
    replay_reader = open_reader(address, make_config())
    with pytest.raises(TimeoutError, match=f'not saved in 1 s.*{address}'):
      replay_reader.checkpoint(timeout=1.0)


@pytest.mark.system
def test_the_reader_outlives_the_server(
  make_config, make_unrolls, serve_process, stop, open_reader
):
  config = make_config()
  server = serve_process(config)
  replay_writer = _write(
    server.address, config, make_unrolls(config, 0, 4), stop
  )
  replay_reader = open_reader(server.address, config)
  assert replay_reader.online(4, stop, Calls()) is not None
  sizes = {'online': 0, 'replay': 4}
  wait_until(lambda: replay_reader.sizes() == sizes, 'they are seen')
  server.kill()
  for _ in range(6):
    with pytest.raises(reader.ReplayTimeout) as caught:
      replay_reader.online(2, stop, Calls())
  assert 'has not answered for' in str(caught.value)
  assert replay_reader.sizes() == sizes
  server.start()
  replay_writer.write(make_unrolls(config, 10, 14), stop, Calls())
  deadline = time.monotonic() + 30
  batch = None
  while batch is None and time.monotonic() < deadline:
    try:
      batch = replay_reader.online(2, stop, Calls())
    except reader.ReplayTimeout:
      continue
  assert list(batch.params_version) == [10, 11]
  # The four that were read ahead of the kill may still come.
  drawn = replay_reader.replay(30, stop, Calls()).params_version
  assert set(drawn[-10:]) <= {10, 11, 12, 13}


@pytest.mark.system
def test_the_reader_leaves_a_connection_that_leads_nowhere(
  make_config,
  make_unrolls,
  serve_process,
  stop,
  open_reader,
  black_hole,
  monkeypatch,
):
  monkeypatch.setattr(table_reader, '_STUCK_S', 1.0)
  config = make_config(read_timeout_s=60.0)
  server = serve_process(config)
  hole = black_hole(server.port)
  replay_writer = _write(
    server.address, config, make_unrolls(config, 0, 2), stop
  )
  replay_reader = open_reader(hole.address, config)
  assert replay_reader.online(2, stop, Calls()) is not None
  hole.swallow()
  # Stands for a name that now leads to another machine.
  replay_reader._monitors[0].address = server.address
  replay_reader._readers['online'].connections[0]._address = server.address
  # The server still has a request of the lost connection, and answers it.
  replay_writer.write(make_unrolls(config, 2, 6), stop, Calls())
  versions = replay_reader.online(2, stop, Calls()).params_version
  assert versions[1] == versions[0] + 1
  assert versions[0] in (2, 3, 4)


@pytest.mark.system
def test_a_checkpoint_brings_the_tables_back(
  make_config, make_unrolls, serve_process, stop, open_reader
):
  config = make_config(checkpoint=True)
  server = serve_process(config)
  replay_reader = open_reader(server.address, config)
  replay_writer = _write(
    server.address, config, make_unrolls(config, 0, 6), stop
  )
  assert list(replay_reader.online(6, stop, Calls()).params_version) == list(
    range(6)
  )
  replay_reader.close()
  # The closed reader takes at most one of these from the queue.
  replay_writer.write(make_unrolls(config, 6, 12), stop, Calls())
  sizes = server.sizes()
  (path,) = replay_reader.checkpoint(timeout=30.0)
  assert path.startswith(server.workdir)
  server.kill()
  server.start()
  assert server.sizes() == sizes
  second = open_reader(server.address, config)
  online = second.online(sizes['online'], stop, Calls()).params_version
  assert list(online) == list(range(12 - sizes['online'], 12))
  counts = collections.Counter(
    second.replay(400, stop, Calls()).params_version.tolist()
  )
  assert sorted(counts) == list(range(12))


def _serve_two(make_config, serve):
  """Returns a configuration, two servers, and a writer to each."""
  config = make_config(
    num_servers=2, online_capacity=20, replay_capacity=40, min_replay_size=6
  )
  addresses = [serve(config, 't') for _ in range(2)]
  writers = [writer.ReplayWriter(address, config, 't') for address in addresses]
  return config, addresses, writers


def test_several_servers_are_read_as_one(
  make_config, make_unrolls, serve, stop
):
  config, addresses, writers = _serve_two(make_config, serve)
  replay_reader = reader.ReplayReader(addresses, config, NUM_ACTIONS, 't')
  for start, replay_writer in zip((0, 100), writers, strict=True):
    replay_writer.write(make_unrolls(config, start, start + 10), stop, Calls())
  assert table_sizes(addresses[0])['replay-t'] == 10
  wait_until(lambda: replay_reader.sizes()['replay'] == 20, 'both are seen')
  online = replay_reader.online(20, stop, Calls()).params_version
  expected = [*range(10), *range(100, 110)]
  assert sorted(online) == expected
  # In order from each, if not among them.
  assert list(online[online < 100]) == list(range(10))
  drawn = replay_reader.replay(1000, stop, Calls()).params_version
  assert set(drawn) == set(expected)
  assert 0.25 < np.mean(drawn < 100) < 0.75
  replay_reader.close()


def test_each_server_holds_its_part(make_config, make_unrolls, serve, stop):
  config, addresses, writers = _serve_two(make_config, serve)
  for start in range(0, 30, 10):
    writers[0].write(make_unrolls(config, start, start + 10), stop, Calls())
    # Makes room in the queue.
    list(
      reverb.Client(addresses[0]).sample('online-t', 10, emit_timesteps=False)
    )
  assert table_sizes(addresses[0])['replay-t'] == 20
  assert table_sizes(addresses[1])['replay-t'] == 0


@pytest.mark.system
def test_one_of_several_servers_may_be_away(
  make_config, make_unrolls, serve, serve_process, stop
):
  config = make_config(num_servers=2)
  steady, dying = serve(config), serve_process(config)
  replay_reader = reader.ReplayReader(
    [steady, dying.address], config, NUM_ACTIONS
  )
  steady_writer, dying_writer = (
    writer.ReplayWriter(address, config) for address in (steady, dying.address)
  )
  dying_writer.write(make_unrolls(config, 0, 2), stop, Calls())
  assert list(replay_reader.online(2, stop, Calls()).params_version) == [0, 1]
  dying.kill()
  steady_writer.write(make_unrolls(config, 10, 12), stop, Calls())
  assert list(replay_reader.online(2, stop, Calls()).params_version) == [10, 11]
  dying.start()
  dying_writer.write(make_unrolls(config, 2, 4), stop, Calls())
  assert list(replay_reader.online(2, stop, Calls()).params_version) == [2, 3]
  replay_reader.close()


def test_the_server_of_another_run_gives_and_takes_nothing(
  make_config, make_unrolls, serve, stop
):
  config = make_config()
  address = serve(config, 'theirs')
  replay_reader = reader.ReplayReader([address], config, NUM_ACTIONS, 'ours')
  with pytest.raises(reader.ReplayTimeout, match="may be another run's"):
    replay_reader.online(1, stop, Calls())
  replay_reader.close()
  replay_writer = writer.ReplayWriter(address, config, 'ours')
  with pytest.raises(RuntimeError, match='online-ours was not found'):
    replay_writer.write(make_unrolls(config, 0, 1), stop, Calls())
  assert table_sizes(address) == {'online-theirs': 0, 'replay-theirs': 0}
