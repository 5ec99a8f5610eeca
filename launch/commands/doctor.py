"""Checks this machine and the environment, and names the cure of each fault.

  python -m bmg doctor

Exit status 0: all is well; 1: a check failed. No check can hang or break the
others: each is a process of its own with a deadline.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

import rich.console
import rich.markup
import rich.table
from absl import app

from bmg.launch.commands import health_checks


class Report(NamedTuple):
  """What one check found."""

  name: str
  ok: bool
  found: str
  cure: str


def run_check(
  name: str,
  deadline_s: float | None = None,
  module: str = 'bmg.launch.commands.health_checks',
) -> Report:
  """Runs one check in a process of its own.

  Args:
    name: a key of `health_checks.CHECKS`.
    deadline_s: seconds it may take; None stands for the check's own deadline.
    module: what is run with `name` as its argument.
  """
  check = health_checks.CHECKS[name]
  deadline_s = check.deadline_s if deadline_s is None else deadline_s
  with tempfile.TemporaryFile('w+') as output:
    process = subprocess.Popen(
      [sys.executable, '-m', module, name],
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    try:
      process.wait(deadline_s)
      timed_out = False
    except subprocess.TimeoutExpired:
      timed_out = True
    finally:
      # The check's own children must not outlive it either.
      _kill_group(process)
    output.seek(0)
    lines = output.read().splitlines()
  if timed_out:
    return Report(name, False, f'no end after {deadline_s:g} s', check.cure)
  return read_report(name, process.returncode, lines)


def _kill_group(process: subprocess.Popen) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def read_report(name: str, return_code: int, lines: list[str]) -> Report:
  """Reads what a check printed: among other things one line of JSON."""
  cure = health_checks.CHECKS[name].cure
  for line in reversed(lines):
    if line.startswith('{"ok":'):
      return Report(name, cure=cure, **json.loads(line))
  last = lines[-1] if lines else 'no output'
  return Report(name, False, f'exit status {return_code}: {last}', cure)


def make_table(reports: list[Report]) -> rich.table.Table:
  """Returns the table that the user sees, one row per check."""
  table = rich.table.Table('check', 'result', 'found')
  for report in reports:
    result = '[green]ok' if report.ok else '[bold red]failed'
    found = rich.markup.escape(report.found)
    if not report.ok:
      found += f'\n[yellow]cure:[/] {rich.markup.escape(report.cure)}'
    table.add_row(report.name, result, found)
  return table


def main(argv: list[str]) -> int:
  """Runs all checks, prints the table and returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected argument: {argv[1]!r}; it takes none.')
  console = rich.console.Console()
  reports = []
  with console.status('') as status:
    for name in health_checks.CHECKS:
      status.update(f'checking {name} ...')
      reports.append(run_check(name))
  console.print(make_table(reports))
  return 0 if all(report.ok for report in reports) else 1


def entry() -> None:
  """The command `bmg doctor`."""
  # What absl shows with --help.
  sys.modules['__main__'].__doc__ = __doc__
  app.run(main)


if __name__ == '__main__':
  entry()
