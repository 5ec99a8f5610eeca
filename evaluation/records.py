"""Records of a run: CSV, JSON lines and TensorBoard, without gap or repeat."""

import csv
import io
import json
import math
import os
import time
import typing
from collections.abc import Iterable, Mapping, Sequence

from absl import logging
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2, summary_pb2

Value = float | int | str | None
Row = Mapping[str, Value]

# The column that orders the rows, and the x-axis of TensorBoard.
X_AXIS = 'num_frames'
_WARN_PERIOD_S = 60.0


class RunRecords:
  """Appends rows to `<name>.csv`, `<name>.jsonl` and TensorBoard events.

  Every row is with the operating system when `write` returns, so a killed
  process loses at most the row it was writing. Records that cannot be written,
  say to a full disk, are reported once a minute and do not stop the run.
  """

  def __init__(self, workdir: str, name: str, resume_at: int | None):
    """Opens the records, dropping what a resumed run is about to repeat.

    Args:
      workdir: the run's folder.
      name: the process they come from, as in `<name>.csv`.
      resume_at: `num_frames` of the checkpoint that the run goes on from: rows
        past it are dropped, as is a last line that was cut short. None starts
        afresh, without any row.

    Raises:
      OSError: the folder cannot be written.
    """
    os.makedirs(workdir, exist_ok=True)
    self._csv_path = os.path.join(workdir, f'{name}.csv')
    self._jsonl_path = os.path.join(workdir, f'{name}.jsonl')
    self._last_warning = -math.inf
    # The CSV is made from the JSON lines, which need no header.
    rows = [] if resume_at is None else _read_rows(self._jsonl_path, resume_at)
    self._columns = list(dict.fromkeys(key for row in rows for key in row))
    _replace(self._jsonl_path, ''.join(_json_line(row) for row in rows))
    self._rewrite_csv(rows)
    self._events = _EventFile(
      os.path.join(workdir, 'tensorboard', name), resume_at
    )

  def write(self, row: Row) -> None:
    """Appends one row.

    Args:
      row: values by column; `num_frames` is the x-axis. New columns may appear
        at any time, and old ones be missing. What is not finite becomes an
        empty field in the CSV and null in JSON.

    Raises:
      ValueError: the row has no `num_frames`.
    """
    row = {key: _plain(value) for key, value in row.items()}
    if not isinstance(row.get(X_AXIS), int | float):
      raise ValueError(f'a row of records needs {X_AXIS!r}: {row}')
    try:
      _append(self._jsonl_path, _json_line(row))
      if set(row) <= set(self._columns):
        _append(self._csv_path, _csv_lines(self._columns, [row]))
      else:
        self._columns += [key for key in row if key not in self._columns]
        self._rewrite_csv(_read_rows(self._jsonl_path, math.inf))
      self._events.write(row)
    except OSError as error:
      now = time.monotonic()
      if now - self._last_warning >= _WARN_PERIOD_S:
        self._last_warning = now
        logging.error('Cannot write records (%s); the run goes on.', error)

  def close(self) -> None:
    """Closes the files."""
    self._events.close()

  def _rewrite_csv(self, rows: Iterable[Row]) -> None:
    header = dict(zip(self._columns, self._columns, strict=True))
    _replace(self._csv_path, _csv_lines(self._columns, [header, *rows]))


class _EventFile:
  """Writes TensorBoard events in the calling thread.

  tensorboardX's own `SummaryWriter` hands them to a thread through a bounded
  queue: on a full disk the thread dies, and the caller then hangs.
  """

  def __init__(self, folder: str, resume_at: int | None):
    self._folder = folder
    self._writer: event_file_writer.EventsWriter | None = None
    # Tells TensorBoard to forget the events past a checkpoint.
    self._first_step = None if resume_at is None else resume_at + 1

  def write(self, row: Row) -> None:
    step = int(typing.cast(float, row[X_AXIS]))
    try:
      if self._writer is None:
        self._open()
      values = [
        summary_pb2.Summary.Value(tag=key, simple_value=value)
        for key, value in row.items()
        if isinstance(value, int | float)
      ]
      self._write(event_pb2.Event(summary={'value': values}, step=step))
    except OSError:
      # A record that was cut short hides all that follow it in its file.
      self._writer = None
      raise

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()

  def _open(self) -> None:
    os.makedirs(self._folder, exist_ok=True)
    # The suffix keeps two files that were opened in one second apart.
    self._writer = event_file_writer.EventsWriter(
      os.path.join(self._folder, 'events'), f'.{time.time_ns()}'
    )
    if self._first_step is not None:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(event_pb2.Event(session_log=start, step=self._first_step))
      self._first_step = None

  def _write(self, event: event_pb2.Event) -> None:
    assert self._writer is not None
    event.wall_time = time.time()
    self._writer.write_event(event)
    self._writer.flush()


def _plain(value: Value) -> Value:
  """Turns NumPy and JAX scalars to Python's, and what is not finite to None."""
  item = getattr(value, 'item', None)
  plain = value if item is None else item()
  if isinstance(plain, float) and not math.isfinite(plain):
    return None
  return plain


def _json_line(row: Row) -> str:
  return json.dumps(row, allow_nan=False) + '\n'


def _csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> str:
  text = io.StringIO()
  csv.DictWriter(text, columns, lineterminator='\n').writerows(rows)
  return text.getvalue()


def _read_rows(path: str, last: float) -> list[Row]:
  """Reads the whole rows of JSON lines with `num_frames` of at most `last`."""
  rows = []
  try:
    with open(path, encoding='utf-8', errors='replace') as file:
      for line in file:
        try:
          rows.append(json.loads(line))
        except ValueError:
          logging.warning('Dropping a damaged line of %s: %.60r', path, line)
  except FileNotFoundError:
    return []
  return [row for row in rows if row[X_AXIS] <= last]


def _append(path: str, text: str) -> None:
  """Appends whole lines, or raises `OSError` and leaves the file as it was."""
  with open(path, 'ab', buffering=0) as file:
    size = file.seek(0, os.SEEK_END)
    data = text.encode()
    try:
      if file.write(data) != len(data):
        raise OSError(f'{path}: only part of a line could be written')
    except OSError:
      file.truncate(size)
      raise


def _replace(path: str, text: str) -> None:
  """Writes a file whole: readers and crashes see the old one or the new one."""
  temporary = f'{path}.tmp'
  with open(temporary, 'w', encoding='utf-8', newline='') as file:
    file.write(text)
  os.replace(temporary, path)
