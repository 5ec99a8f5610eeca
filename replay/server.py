"""The process of a Reverb server."""

import os
import socket
import threading
from collections.abc import Callable

import reverb
from absl import logging

from bmg.configs import schema
from bmg.replay import tables

# Inside the run's folder.
CHECKPOINT_FOLDER = 'replay'
# Stays empty.
_UNUSED_FOLDER = os.path.join('state', 'unused_replay')
_HEARTBEAT_PERIOD_S = 1.0
_ANSWER_TIMEOUT_S = 5

# Until the process ends: to stop one in order means to wait for its clients.
_running: list[reverb.Server] = []


def run_server(
  config: schema.Config,
  num_actions: int,
  workdir: str,
  index: int,
  port: int,
  token: str,
  stop: threading.Event,
  heartbeat: Callable[[], None],
) -> None:
  """Serves the tables until `stop`, and then to the end of the process.

  Args:
    config: the run's configuration.
    num_actions: size A of the action set.
    workdir: the run's folder, for checkpoints.
    index: of the server, among those of the run.
    port: to serve on.
    token: of the run, see `tables.server_name`.
    stop: set to end it.
    heartbeat: called every second in which the server answers.

  Raises:
    OSError: the port is taken.
  """
  check_port_free(port)
  server = reverb.Server(
    tables.make_tables(config, num_actions, token),
    port=port,
    checkpointer=make_checkpointer(config, workdir, index),
  )
  _running.append(server)
  client = server.localhost_client()
  while not stop.wait(_HEARTBEAT_PERIOD_S):
    try:
      client.server_info(timeout=_ANSWER_TIMEOUT_S)
    # Whatever is wrong, silence is how the supervisor gets to know of it.
    except Exception as error:
      logging.warning('The Reverb server does not answer: %s', error)
    else:
      heartbeat()


def make_checkpointer(
  config: schema.Config, workdir: str, index: int
) -> reverb.checkpointers.CheckpointerBase:
  """Returns what saves and restores the tables of server `index`.

  A server loads the newest checkpoint of its folder when it starts, and keeps
  only that. Without `replay.checkpoint` it gets a folder where there never is
  one: a server of no folder would leave a new one in /tmp at each start.
  """
  path = os.path.join(
    workdir,
    CHECKPOINT_FOLDER if config.replay.checkpoint else _UNUSED_FOLDER,
    str(index),
  )
  # Reverb fails on a path that does not exist.
  os.makedirs(path, exist_ok=True)
  return reverb.checkpointers.DefaultCheckpointer(path)


def check_port_free(port: int) -> None:
  """Raises `OSError` if anything listens on TCP `port` of this machine.

  Reverb binds with SO_REUSEPORT: a second server on a port starts without an
  error and takes half of the first one's clients. A plain bind tells.
  """
  with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
    # Connections of a killed predecessor may linger in TIME_WAIT.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
      probe.bind(('::', port))
    except OSError as error:
      raise OSError(
        error.errno,
        f'port {port} for the Reverb server is taken: {error.strerror}. Is '
        'another run, or a left-over of this one, still alive?',
      ) from error
