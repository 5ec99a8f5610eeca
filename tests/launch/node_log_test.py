from launch import node_log


def test_last_line_is_the_nodes_own(tmp_path):
  log = node_log.NodeLog(tmp_path / 'logs' / 'actor-0.log')
  with log.open_for_start(1) as output:
    output.write(b'Traceback:\nValueError: no luck\n\n')
  assert log.last_line() == 'ValueError: no luck'
  log.write('ended: exit status 1')
  with log.open_for_start(2):
    pass
  # The second life has not said anything.
  assert log.last_line() == ''


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
