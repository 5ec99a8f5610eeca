"""Runs a program as threads of this process, for tests and for debugging.

The same program, addresses and nodes as with `launch.local.launcher`, but
nothing is restarted: the first error ends the run.
"""

import os
import signal
import threading
import time
import traceback
from typing import Any

from absl import flags
from launchpad.launch import worker_manager

from bmg.configs import schema
from bmg.launch.local import environment
from bmg.launch.local import launcher as local
from bmg.launch.program import address_book, addresses, listeners
from bmg.launch.program import program as program_lib
from bmg.launch.run import files, topology

_POLL_S = 0.2


def run(config: schema.Config, workdir: str, display: local.Display) -> int:
  """Runs the program; to be called from the main thread, which takes signals.

  Returns:
    0 where the run finished or was stopped, 1 where a node failed or did not
    stop in time. (Its thread lives on: leave the process.)
  """
  # Before anything imports JAX, which reads its settings only then.
  os.environ.update(
    environment.environment(
      topology.LEARNER, schema.to_dict(config), os.environ
    )
  )
  # Launchpad's manager reads its flags; ours are none of its business.
  flags.FLAGS(['bmg.launch.local.threads', '--lp_termination_notice_secs=-1'])
  files.begin_launch(workdir)
  address_book.publish_local(workdir, schema.to_dict(config))
  program = program_lib.make_program(config, workdir)
  addresses.bind(program, config, workdir)
  listeners.keep(
    address.resolve()
    for node in program.get_all_nodes()
    for address in node.addresses
  )
  manager = worker_manager.WorkerManager(kill_main_thread=False)
  stop = manager.stop_event()
  handlers = _stop_on_signals(stop)
  try:
    for label, group in program.groups.items():
      for node in group:
        manager.thread_worker(label, node.function)
    failure = _watch(manager, display)
    stop.set()
    late = _await_threads(config.launch.grace_s, display)
  finally:
    for sig, handler in handlers.items():
      signal.signal(sig, handler)
  finished = files.finished(workdir).exists()
  failed = failure is not None or bool(late)
  state = files.FINISHED if finished else files.STOPPED
  files.end_launch(workdir, files.FAILED if failed else state)
  if failure is not None:
    display.say(f'error: {type(failure).__name__}: {failure}')
  elif late:
    display.say(f'error: did not stop in time: {", ".join(late)}')
  else:
    display.say('Finished.' if finished else 'Stopped.')
  return int(failed)


def _stop_on_signals(stop: threading.Event) -> dict[int, Any]:
  """Has signals stop the run; returns the handlers that were there before."""
  return {
    sig: signal.signal(sig, lambda *_: stop.set())
    for sig in (signal.SIGINT, signal.SIGTERM)
  }


def _watch(
  manager: worker_manager.WorkerManager, display: local.Display
) -> Exception | None:
  """Waits for a stop, for the evaluator's end, or for an error (returned)."""
  while not manager.stop_event().is_set():
    display.update()
    try:
      manager.check_for_thread_worker_exception()
    except Exception as error:
      traceback.print_exception(error)
      return error
    # It ends when it has judged the last parameters of the run.
    if topology.EVALUATOR not in _running():
      return None
    time.sleep(_POLL_S)
  return None


def _await_threads(grace_s: float, display: local.Display) -> list[str]:
  """Waits for the end of all nodes; returns the groups that are late."""
  until = time.monotonic() + grace_s
  while (late := _running()) and time.monotonic() < until:
    display.update()
    time.sleep(_POLL_S)
  return late


def _running() -> list[str]:
  """Groups with live threads, which Launchpad names after them."""
  return sorted(
    {thread.name for thread in threading.enumerate()} & set(topology.GROUPS)
  )
