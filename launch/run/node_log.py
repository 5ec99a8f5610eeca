"""The log of one node, across its restarts. Standard library only."""

import contextlib
import os
import pathlib
import re
import shutil
import time
from typing import BinaryIO

# The log is moved to `<name>.1` beyond this size, so a run keeps twice as much.
_MAX_BYTES = 20_000_000
_TAIL_BYTES = 65_536
# How XLA and other C++ libraries say why they abort. Python's list of threads
# and modules comes after it.
_ABORT = re.compile(r'F\d{4} |[-:. \d]*F external/')


class NodeLog:
  """Appends a line per event to what the node itself writes."""

  def __init__(self, path: pathlib.Path, max_bytes: int = _MAX_BYTES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    self._path = path
    self._max_bytes = max_bytes

  def open_for_start(self, number: int) -> BinaryIO:
    """Opens the log for the node's output, and says that it starts."""
    self.limit_size()
    self.write(f'start {number}')
    return self._path.open('ab')

  def write(self, event: str) -> None:
    """Appends one line of the supervisor's own."""
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    # A full disk must not end the watch over the node.
    with (
      contextlib.suppress(OSError),
      self._path.open('a', encoding='utf-8') as log,
    ):
      log.write(f'--- {now} {event} ---\n')

  def limit_size(self) -> None:
    """Moves a log that has grown too long aside.

    It is copied and emptied, not renamed, because the node goes on writing to
    the same open file (in append mode, so that it starts again at its top).
    """
    with contextlib.suppress(OSError):
      if self._path.stat().st_size > self._max_bytes:
        shutil.copyfile(self._path, f'{self._path}.1')
        os.truncate(self._path, 0)

  def last_words(self) -> str:
    """Why the node ended, by what it wrote since its start.

    Returns:
      The line with which a library aborted it, else its last one, else ''.
    """
    try:
      with self._path.open('rb') as log:
        log.seek(max(0, self._path.stat().st_size - _TAIL_BYTES))
        lines = log.read().decode('utf-8', 'replace').splitlines()
    except OSError:
      return ''
    last = ''
    for line in map(str.strip, reversed(lines)):
      if line.startswith('--- ') and line.endswith(' ---'):
        break
      if _ABORT.match(line):
        return line
      last = last or line
    return last
