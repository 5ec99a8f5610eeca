"""Shows that Reverb works on this machine, apart from any run."""

import numpy as np
import reverb

_TABLE = 'selfcheck'
_TIMEOUT_MS = 10_000


def round_trip() -> int:
  """Starts a server, writes one step to it, reads it back and stops it.

  Waits 10 s at most for the server to take the step.

  Returns:
    The server's port.

  Raises:
    RuntimeError: what came back is not what was written.
    reverb.ReverbError: the server did not take the step in time.
  """
  sent = np.arange(6, dtype=np.uint8)
  server = reverb.Server([reverb.Table.queue(_TABLE, max_size=1)], port=None)
  try:
    client = reverb.Client(f'localhost:{server.port}')
    with client.trajectory_writer(1, validate_items=False) as writer:
      writer.append([sent])
      writer.create_item(_TABLE, 1.0, [writer.history[0][:]])
      writer.flush(timeout_ms=_TIMEOUT_MS)
    # No deadline, but none needed: the flush saw the item in the table.
    received = next(iter(client.sample(_TABLE, emit_timesteps=False))).data[0]
    if not np.array_equal(received, sent[None]):
      raise RuntimeError(f'wrote {sent[None]}, but read {received}')
    return server.port
  finally:
    server.stop()
