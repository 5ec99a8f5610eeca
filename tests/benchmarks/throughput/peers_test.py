import dataclasses
import datetime
import os
import pathlib
import time

import pytest

from bmg import errors
from bmg.benchmarks.throughput import peers
from bmg.configs import atari_nature, schema
from bmg.launch import cli

_LINE = '[{}][99] Fps is (10 sec: 1.0). Total num frames: {}. Throughput'


def _line(second, frames):
  moment = datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=second)
  return _LINE.format(f'{moment:%Y-%m-%d %H:%M:%S},250', frames)


def _config():
  return schema.from_config_dict(atari_nature.get_config())


def _fake_python(folder, text):
  path = folder / 'python'
  path.write_text(f'#!/bin/sh\n{text}\n')
  path.chmod(0o755)
  return str(path)


def test_rates_begin_after_the_warm_up():
  # 1,000 frames/s at first, 200 from the 20th second on.
  frames = [(second, min(second, 20) * 1000) for second in range(0, 21, 5)]
  frames += [(20 + second, 20_000 + 200 * second) for second in (5, 10, 15)]
  text = 'noise\n' + '\n'.join(_line(*point) for point in frames)
  points = peers.progress(text)
  assert [point[1] for point in points] == [point[1] for point in frames]
  assert points[1][0] - points[0][0] == pytest.approx(5.0)
  # The first frames come at 5 s, so the window begins at 20 s.
  assert peers.rate(points, 15.0) == pytest.approx(200.0)
  assert peers.rate(points, 16.0) is None
  assert peers.rate(points[:1], 0.0) is None


def test_measures_what_is_printed_and_leaves_nobody(tmp_path, monkeypatch):
  monkeypatch.setattr(peers, '_WARM_UP_S', 0.0)
  pid_file = tmp_path / 'pid'
  lines = ''.join(
    f"echo '{_line(second, 400 * second)}'\n" for second in range(0, 16, 5)
  )
  python = _fake_python(
    tmp_path, f'sleep 100 &\necho $! > {pid_file}\n{lines}wait'
  )
  folder = tmp_path / 'run'
  folder.mkdir()
  rate = peers.measure_sample_factory(python, _config(), (), 10.0, str(folder))
  assert rate == pytest.approx(400.0)
  child = int(pid_file.read_text())
  deadline = time.monotonic() + 5.0
  while _runs(child):
    assert time.monotonic() < deadline, 'a child of the peer lives on'
    time.sleep(0.05)


def _runs(pid):
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().split()[2]
  except FileNotFoundError:
    return False
  return state != 'Z'


def test_the_peer_plays_the_same_game(tmp_path, monkeypatch):
  monkeypatch.setattr(peers, '_WARM_UP_S', 0.0)
  python = _fake_python(
    tmp_path,
    f'echo "$@" > {tmp_path}/arguments\n'
    f"echo '{_line(0, 1)}'\necho '{_line(9, 10)}'\nsleep 100",
  )
  config = _config()
  env = dataclasses.replace(config.env, game='road_runner')
  config = dataclasses.replace(config, env=env)
  peers.measure_sample_factory(
    python, config, ('--batch_size=7',), 1.0, str(tmp_path)
  )
  arguments = (tmp_path / 'arguments').read_text().split()
  assert '--env=atari_roadrunner' in arguments
  # The last of several counts.
  assert arguments[-1] == '--batch_size=7'


def test_says_why_the_peer_does_not_run(tmp_path):
  python = _fake_python(tmp_path, 'echo no such module >&2; exit 3')
  with pytest.raises(errors.FatalError, match=r'(?s)status 3.*such'):
    peers.measure_sample_factory(python, _config(), (), 1.0, str(tmp_path))
  os.remove(python)
  with pytest.raises(cli.UsageError, match='No such file'):
    peers.measure_sample_factory(python, _config(), (), 1.0, str(tmp_path))


def test_needs_the_peers_interpreter():
  with pytest.raises(cli.UsageError, match='sample_factory_python'):
    peers.main([''])
