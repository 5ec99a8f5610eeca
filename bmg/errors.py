"""Errors that the supervisor of a process treats in their own way."""


class FatalError(RuntimeError):
  """Restarting cannot help: the run stops with this message and no traceback.

  Raised for a cause that would come back at once (a full disk at the last save,
  checkpoints that cannot be read, a loss that is not finite), where trying
  again would only hide it.
  """
