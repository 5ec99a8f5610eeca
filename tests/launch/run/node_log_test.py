from bmg.launch.run import node_log


def test_last_words_are_the_nodes_own(tmp_path):
  log = node_log.NodeLog(tmp_path / 'logs' / 'actor-0.log')
  with log.open_for_start(1) as output:
    output.write(b'Traceback:\nValueError: no luck\n\n')
  assert log.last_words() == 'ValueError: no luck'
  log.write('ended: exit status 1')
  with log.open_for_start(2):
    pass
  # The second life has not said anything.
  assert log.last_words() == ''


def test_last_words_are_those_of_an_abort_not_what_python_adds(tmp_path):
  log = node_log.NodeLog(tmp_path / 'learner-0.log')
  reason = '2026-01-02 03:04:05.678901: F external/xla/client.cc:1] no more'
  with log.open_for_start(1) as output:
    output.write(f'{reason}\nFatal Python error: Aborted\n\n'.encode())
    output.write(b'Thread 0x1 (most recent call first):\n' * 200)
    output.write(b'Extension modules: numpy, jaxlib (total: 2)\n')
  assert log.last_words() == reason
  with log.open_for_start(2) as output:
    output.write(b'E0000 00:00:00.1 1 tcp.cc:2] soon\nF0000 00:00:00.2 1 d.cc]')
    output.write(b' Too many open files\nFatal Python error: Aborted\n')
  assert log.last_words() == 'F0000 00:00:00.2 1 d.cc] Too many open files'


def test_a_long_log_is_moved_aside_while_it_is_written(tmp_path):
  path = tmp_path / 'actor-0.log'
  log = node_log.NodeLog(path, max_bytes=1000)
  with log.open_for_start(1) as output:
    output.write(b'x' * 2000)
    output.flush()
    log.limit_size()
    output.write(b'after')
  assert path.read_bytes() == b'after'
  assert len((tmp_path / 'actor-0.log.1').read_bytes()) > 2000
