"""Other programs' commands, with a deadline on each. Standard library only."""

import subprocess
from collections.abc import Sequence


class CommandError(RuntimeError):
  """A command has failed or has not ended in time; says what it said."""


class MissingCommandError(CommandError):
  """There is no such command on this machine."""


def call(command: Sequence[str], timeout_s: float, name: str = '') -> str:
  """Runs a command; returns what it prints, without spaces around it.

  Args:
    command: with its arguments.
    timeout_s: after which it is killed.
    name: what errors call it; by default its first word.

  Raises:
    MissingCommandError: there is none.
    CommandError: it fails, or takes too long.
  """
  name = name or command[0]
  try:
    return subprocess.run(
      command,
      check=True,
      capture_output=True,
      stdin=subprocess.DEVNULL,
      text=True,
      timeout=timeout_s,
    ).stdout.strip()
  except FileNotFoundError as error:
    raise MissingCommandError(
      f'there is no command {command[0]!r} on this machine'
    ) from error
  except subprocess.TimeoutExpired as error:
    raise CommandError(
      f'{name} has not ended within {timeout_s:g} s'
    ) from error
  except subprocess.CalledProcessError as error:
    said = ' '.join(error.stderr.split()) or f'exit status {error.returncode}'
    raise CommandError(f'{name}: {said}') from error
