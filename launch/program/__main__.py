"""The process of one node.

  python -m bmg.launch.program --workdir=... --group=actor --index=0

Started by a supervisor. It builds the run's program again from the saved
configuration, as every other process of the run does, and runs one node of it.
"""

import argparse
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence

from absl import flags, logging
from launchpad.launch import worker_manager

from bmg import errors
from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch.program import addresses, listeners
from bmg.launch.program import program as program_lib
from bmg.launch.run import files, topology

# Objects made since the last collection; Python's own is 700.
_GARBAGE_THRESHOLD = 50_000


def main(argv: Sequence[str]) -> int:
  """Runs the node to its end; returns the status to leave with."""
  parser = argparse.ArgumentParser(prog='bmg.launch.program')
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--group', required=True, choices=tuple(topology.GROUPS))
  parser.add_argument('--index', required=True, type=int)
  args = parser.parse_args(argv)
  _raise_file_limit()
  # Else a sixth of the time of importing JAX and TensorFlow goes to it.
  gc.set_threshold(_GARBAGE_THRESHOLD)
  # The supervisor alone stops a node, not Launchpad's own countdown.
  flags.FLAGS(['bmg.launch.program', '--lp_termination_notice_secs=-1'])
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  # Dozens of lines per checkpoint, and tracebacks of errors that it raises too.
  logging.get_absl_logger().addFilter(
    lambda record: f'{os.sep}orbax{os.sep}' not in record.pathname
  )
  try:
    _run(args.workdir, topology.NodeId(args.group, args.index))
  except (errors.FatalError, checks.ConfigError) as error:
    _print_last_words(error)
    return topology.FATAL_STATUS
  except Exception as error:
    traceback.print_exc()
    _print_last_words(error)
    return 1
  return 0


def _raise_file_limit() -> None:
  """Lets a server have as many clients as the hard limit allows.

  gRPC aborts the process when it runs out of files.
  """
  _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run(workdir: str, node_id: topology.NodeId) -> None:
  config = schema.from_config_dict(files.read_json(files.config(workdir)))
  program = program_lib.make_program(config, workdir)
  addresses.bind(program, config, workdir)
  # Turns SIGTERM into `lp.stop_event()` of this thread.
  worker_manager.WorkerManager(register_in_thread=True)
  _stop_by(signal.Signals[os.environ.get('BMG_STOP_SIGNAL', 'SIGTERM')])
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  node = program.groups[node_id.group][node_id.index]
  listeners.keep(address.resolve() for address in node.addresses)
  node.function()


def _stop_by(sig: signal.Signals) -> None:
  """Has `sig` do what SIGTERM does by now, and SIGTERM nothing."""
  if sig != signal.SIGTERM:
    # Launchpad's dispatcher, which goes by the signal's number.
    handler = signal.getsignal(signal.SIGTERM)
    assert callable(handler)
    signal.signal(sig, lambda _, frame: handler(signal.SIGTERM, frame))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _print_last_words(error: BaseException) -> None:
  """Prints the error as one line, which the supervisor reads as the cause."""
  message = ' '.join(str(error).split())
  print(f'{type(error).__name__}: {message}', file=sys.stderr)


def _leave(status: int) -> None:
  """Ends the process now.

  The servers' threads, Launchpad's alarm and the clients' destructors would
  hold up an orderly end of the interpreter, or change its status.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


if __name__ == '__main__':
  # Until the node can stop in order, a Ctrl-C must not stop it in disorder.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  _leave(main(sys.argv[1:]))
