import os
import signal
import subprocess
import sys
import textwrap

import pytest

from bmg.launch.program import address_book
from bmg.launch.run import files
from tests.launch.processes import ROOT, is_alive, wait_for

pytestmark = pytest.mark.system

_LIVE = """
heartbeat()
while True:
  time.sleep(0.1)
"""
_STOPS_IN_ORDER = (
  """
def stop(*_):
  print('saved')
  sys.exit(0)
signal.signal(signal.SIGTERM, stop)
"""
  + _LIVE
)


def test_a_node_that_finishes_is_left_alone(supervise):
  supervised = supervise('learner', "heartbeat(); print('done')")
  assert supervised.process.wait(timeout=20) == 0
  state = supervised.state()
  assert (state['state'], state['starts']) == ('finished', 1)
  assert 'done' in supervised.log()


def test_a_killed_node_is_restarted_and_counts_its_incarnations(supervise):
  supervised = supervise('actor', "print('life', incarnation)" + _LIVE)
  first = supervised.await_state('running')
  os.kill(first['pid'], signal.SIGKILL)
  second = wait_for(
    lambda: (
      supervised.await_state('running')['starts'] == 2 and supervised.state()
    )
  )
  assert second['pid'] != first['pid']
  assert second['restarts'] == 1
  assert second['last_exit'] == 'killed by SIGKILL'
  # Not what it happened to say before.
  assert second['last_error'] == 'killed by SIGKILL'
  assert 'life 0' in supervised.log()
  assert 'life 1' in supervised.log()


def test_incarnations_count_on_when_the_run_is_resumed(supervise):
  for life in range(2):
    supervised = supervise('learner', "print('life', incarnation)")
    assert supervised.process.wait(timeout=20) == 0
    assert f'life {life}' in supervised.log()


def test_a_learner_is_restarted_a_limited_number_of_times(supervise):
  supervised = supervise(
    'learner', "heartbeat(); print('ValueError: no luck'); sys.exit(1)"
  )
  assert supervised.process.wait(timeout=20) == 1
  state = supervised.state()
  assert state['state'] == 'failed'
  # launch.max_restarts = 1.
  assert state['starts'] == 2
  assert state['last_exit'] == 'exit status 1'
  assert state['last_error'] == 'ValueError: no luck'


def test_an_actor_that_starts_is_restarted_for_ever(supervise):
  supervised = supervise('actor', 'heartbeat(); sys.exit(1)')
  wait_for(lambda: supervised.state().get('restarts', 0) >= 3)
  assert supervised.process.poll() is None


def test_an_actor_that_never_starts_fails(supervise):
  supervised = supervise('actor', "raise ImportError('nothing there')")
  assert supervised.process.wait(timeout=20) == 1
  assert supervised.state()['starts'] == 2
  assert supervised.state()['last_error'] == 'ImportError: nothing there'


def test_a_fatal_error_is_not_tried_again(supervise):
  supervised = supervise(
    'actor', "heartbeat(); print('FatalError: loss is NaN'); sys.exit(3)"
  )
  assert supervised.process.wait(timeout=20) == 1
  state = supervised.state()
  assert (state['state'], state['starts']) == ('failed', 1)
  assert state['last_error'] == 'FatalError: loss is NaN'


def test_a_silent_node_is_killed_and_restarted(supervise):
  supervised = supervise('actor', _LIVE, heartbeat_timeout_s=1.0)
  first = supervised.await_state('running')
  wait_for(lambda: supervised.state()['starts'] == 2)
  assert not is_alive(first['pid'])
  assert 'no sign of life' in supervised.log()
  assert 'no sign of life' in supervised.state()['last_error']


def test_a_stuck_node_is_named_until_it_goes_on(supervise):
  beats = 'while True:\n  heartbeat()\n  time.sleep(0.1)\n'
  supervised = supervise('actor', beats, heartbeat_timeout_s=120.0)
  pid = supervised.await_state('running')['pid']
  os.kill(pid, signal.SIGSTOP)
  wait_for(lambda: supervised.state()['state'] == 'silent', timeout_s=60)
  os.kill(pid, signal.SIGCONT)
  assert supervised.await_state('running')['starts'] == 1


def test_sigterm_lets_the_node_save(supervise):
  supervised = supervise('learner', _STOPS_IN_ORDER)
  pid = supervised.await_state('running')['pid']
  supervised.process.terminate()
  assert supervised.process.wait(timeout=20) == 0
  assert supervised.state()['state'] == 'stopped'
  assert 'saved' in supervised.log()
  assert not is_alive(pid)


def test_a_node_that_cannot_save_at_the_stop_is_reported(supervise):
  supervised = supervise(
    'learner',
    _STOPS_IN_ORDER.replace('sys.exit(0)', 'sys.exit(1)').replace(
      'saved', 'OSError: disk full'
    ),
  )
  supervised.await_state('running')
  supervised.process.terminate()
  assert supervised.process.wait(timeout=20) == 1
  assert supervised.state()['last_error'] == 'OSError: disk full'


def test_a_node_that_ignores_sigterm_is_killed_after_the_grace(supervise):
  supervised = supervise(
    'learner',
    'signal.signal(signal.SIGTERM, signal.SIG_IGN)' + _LIVE,
    grace_s=0.5,
  )
  pid = supervised.await_state('running')['pid']
  supervised.process.terminate()
  assert supervised.process.wait(timeout=20) == 1
  assert 'launch.grace_s' in supervised.state()['last_error']
  assert not is_alive(pid)


def test_a_stop_ends_the_wait_before_a_restart(supervise):
  supervised = supervise('actor', 'heartbeat(); sys.exit(1)')
  # The wait has grown to 4 s by now.
  wait_for(lambda: supervised.state().get('restarts', 0) >= 4)
  supervised.process.terminate()
  assert supervised.process.wait(timeout=2) == 0


def test_replay_stops_after_the_learner(supervise):
  replay = supervise('replay', _STOPS_IN_ORDER)
  learner = supervise('learner', _STOPS_IN_ORDER)
  replay.await_state('running')
  learner.await_state('running')
  replay.process.terminate()
  replay.await_state('stopping')
  with pytest.raises(subprocess.TimeoutExpired):
    replay.process.wait(timeout=1)
  learner.process.terminate()
  assert learner.process.wait(timeout=20) == 0
  assert replay.process.wait(timeout=20) == 0


def test_a_node_dies_with_its_supervisor(supervise):
  supervised = supervise(
    'learner', 'signal.signal(signal.SIGTERM, signal.SIG_IGN)' + _LIVE
  )
  pid = supervised.await_state('running')['pid']
  supervised.process.kill()
  wait_for(lambda: not is_alive(pid))


def test_children_of_a_node_go_with_it(supervise):
  supervised = supervise(
    'actor',
    """
pid = os.fork()
if pid:
  print('child', pid, flush=True)
  heartbeat()
while True:
  time.sleep(0.1)
""",
  )
  pid = supervised.await_state('running')['pid']
  child = int(supervised.log().split('child ')[1].split()[0])
  assert is_alive(child)
  os.kill(pid, signal.SIGKILL)
  wait_for(lambda: not is_alive(child))


def test_imports_nothing_but_the_standard_library():
  program = textwrap.dedent("""
    import sys
    import bmg.launch.local.supervisor
    print(*sorted({name.partition('.')[0] for name in sys.modules}))
  """)
  # Without site-packages anything else would not be found.
  output = subprocess.run(
    [sys.executable, '-S', '-c', program],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    check=True,
    text=True,
  ).stdout
  loaded = set(output.split()) - {'__main__', 'bmg'}
  assert loaded <= set(sys.stdlib_module_names) | {'sitecustomize'}


def test_a_node_waits_for_its_launch_and_leaves_with_it(supervise):
  supervised = supervise('actor', "print('life', incarnation)" + _LIVE)
  workdir = str(supervised.workdir)
  first = supervised.await_state('running')
  files.end_launch(workdir, files.WAITING)
  supervised.await_state('waiting')
  assert not is_alive(first['pid'])
  files.begin_launch(workdir)
  second = supervised.await_state('running')
  # What the launcher did to it is not held against it.
  assert (second['starts'], second['restarts']) == (2, 0)
  files.end_launch(workdir, files.FINISHED)
  assert supervised.process.wait(timeout=20) == 0
  assert supervised.state()['state'] == 'stopped'
  assert not is_alive(second['pid'])


def test_a_node_starts_anew_with_the_next_launch(supervise):
  supervised = supervise('replay', _LIVE)
  first = supervised.await_state('running')
  address = address_book.look_up(str(supervised.workdir), 'replay.0.reverb')
  files.begin_launch(str(supervised.workdir))
  wait_for(lambda: supervised.state()['starts'] == 2)
  assert not is_alive(first['pid'])
  # Entered again, for this launch.
  assert address_book.look_up(str(supervised.workdir), 'replay.0.reverb') == (
    address
  )


def test_a_node_is_let_save_at_the_end_of_its_launch(supervise):
  supervised = supervise('evaluator', _STOPS_IN_ORDER)
  supervised.await_state('running')
  files.end_launch(str(supervised.workdir), files.STOPPED)
  assert supervised.process.wait(timeout=20) == 0
  assert 'saved' in supervised.log()
