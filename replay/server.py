"""What the Reverb node needs besides its tables."""

import os
import socket

import reverb

from configs import schema

# Inside the run's folder.
CHECKPOINT_FOLDER = 'replay'
# Stays empty.
_UNUSED_FOLDER = os.path.join('state', 'unused_replay')


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
