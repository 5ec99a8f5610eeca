"""A small run, its unrolls, and servers in this and in other processes."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import reverb

from bmg.configs import schema
from bmg.replay import tables

NUM_ACTIONS = 3

_SERVE = """
import json, sys
import reverb
from bmg.configs import schema
from bmg.replay import server, tables

config = schema.from_config_dict(json.loads(sys.argv[1]))
reverb.Server(
  tables.make_tables(config, 3),
  port=int(sys.argv[2]),
  checkpointer=server.make_checkpointer(config, sys.argv[3], 0),
).wait()
"""


class ServerProcess:
  """A Reverb server of its own process, to be killed and started again."""

  def __init__(self, config, workdir):
    self.workdir = str(workdir)
    self._config = config
    with socket.socket() as probe:
      probe.bind(('localhost', 0))
      self.port = probe.getsockname()[1]
    self.address = f'localhost:{self.port}'
    self.start()

  def start(self):
    self.process = subprocess.Popen(
      [
        sys.executable,
        '-c',
        _SERVE,
        json.dumps(schema.to_dict(self._config)),
        str(self.port),
        self.workdir,
      ],
      stderr=subprocess.DEVNULL,
    )
    wait_until(self.sizes, 'the server answers', 60)

  def kill(self):
    self.process.kill()
    self.process.wait()

  def sizes(self):
    """Sizes by table, or None where the server does not answer."""
    return table_sizes(self.address)


def table_sizes(address):
  try:
    info = reverb.Client(address).server_info(timeout=1)
  except (reverb.ReverbError, RuntimeError):
    return None
  return {name: table.current_size for name, table in info.items()}


def wait_until(condition, what, seconds=20):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, f'waited {seconds} s until {what}'
    time.sleep(0.05)


class Calls:
  """A heartbeat that counts."""

  def __init__(self):
    self.count = 0

  def __call__(self):
    self.count += 1


@pytest.fixture
def make_config():
  """Makes configurations: keywords are fields of `replay`."""

  def make(**replay):
    return schema.from_config_dict(
      {
        'env': {'protocol': 'small42', 'height': 8, 'width': 6},
        'actors': {'unroll_length': 5, 'insert_timeout_s': 0.5},
        'replay': {
          'online_batch': 2,
          'replay_batch': 4,
          'online_capacity': 6,
          'replay_capacity': 20,
          'min_replay_size': 1,
          'read_timeout_s': 1.0,
          **replay,
        },
      }
    )

  return make


@pytest.fixture
def make_unrolls():
  """Makes unrolls that `params_version` tells apart."""

  def make(config, start, stop):
    rng = np.random.default_rng(start)
    spec = tables.unroll_spec(config, NUM_ACTIONS)
    return [
      spec._replace(
        frames=rng.integers(0, 256, spec.frames.shape, np.uint8),
        params_version=np.int64(version),
      )
      for version in range(start, stop)
    ]

  return make


@pytest.fixture
def serve():
  """Serves the tables of a configuration in this process."""
  with contextlib.ExitStack() as stack:

    def start(config, token=''):
      server = reverb.Server(
        tables.make_tables(config, NUM_ACTIONS, token), port=None
      )
      stack.callback(server.stop)
      return f'localhost:{server.port}'

    yield start


@pytest.fixture
def serve_process(tmp_path):
  """Serves the tables of a configuration in a process of its own."""
  servers = []

  def start(config):
    servers.append(ServerProcess(config, tmp_path))
    return servers[-1]

  yield start
  for server in servers:
    server.kill()


@pytest.fixture
def stop():
  event = threading.Event()
  yield event
  event.set()


class BlackHole:
  """Forwards TCP connections, until it swallows all that they carry.

  So a client sees a machine vanish: nothing comes back, no connection closes.
  """

  def __init__(self, port):
    self._target = port
    self._swallowing = threading.Event()
    self._listener = socket.create_server(('127.0.0.1', 0))
    self.address = f'127.0.0.1:{self._listener.getsockname()[1]}'
    threading.Thread(target=self._accept, daemon=True).start()

  def swallow(self):
    self._swallowing.set()

  def _accept(self):
    while True:
      near, _ = self._listener.accept()
      far = socket.create_connection(('localhost', self._target))
      for source, sink in ((near, far), (far, near)):
        threading.Thread(
          target=self._pump, args=(source, sink), daemon=True
        ).start()

  def _pump(self, source, sink):
    with contextlib.suppress(OSError):
      while data := source.recv(2**16):
        if not self._swallowing.is_set():
          sink.sendall(data)
    # Held open, as a vanished machine does.
    threading.Event().wait()


@pytest.fixture
def black_hole():
  return BlackHole
