"""Real processes for the tests of the launcher."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

from bmg.configs import base, schema
from bmg.launch.run import files

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANTS_RECIPE = ROOT / 'tests/launch/variants_recipe.py'


def small_config(num_actors=1, **launch) -> schema.Config:
  """A run of few actors whose processes are given up on quickly."""
  config = base.get_config()
  config.env.protocol = 'small42'
  config.agent.torso = 'small'
  config.actors.num_actors = num_actors
  config.launch.update(
    {
      'grace_s': 5.0,
      'max_restarts': 1,
      'heartbeat_timeout_s': 20.0,
      **launch,
    }
  )
  return schema.from_config_dict(config)


def wait_for(condition, timeout_s=30.0):
  """Returns the first true value of `condition()`."""
  until = time.monotonic() + timeout_s
  while time.monotonic() < until:
    value = condition()
    if value:
      return value
    time.sleep(0.05)
  raise AssertionError(f'nothing came of it within {timeout_s} s')


def is_alive(pid: int) -> bool:
  """Whether the process runs; zombies do not."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return stat.rpartition(')')[2].split()[0] not in 'ZX'


def is_reached(host, port):
  """Whether a connection is made; what is dropped is never answered."""
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  with socket.socket(family, socket.SOCK_STREAM) as client:
    client.settimeout(0.3)
    return client.connect_ex((host, port)) == 0


class Supervised:
  """A supervisor of a fake node, as a process."""

  def __init__(self, workdir, tmp_path, group, script, **launch):
    config = schema.to_dict(small_config(**launch))
    (workdir / 'config.json').write_text(json.dumps(config))
    files.begin_launch(str(workdir))
    self.workdir = workdir
    self.name = f'{group}-0'
    path = tmp_path / f'{group}.py'
    path.write_text(FAKE_PREAMBLE + script)
    self.process = subprocess.Popen(
      [
        *(sys.executable, '-S', '-m', 'bmg.launch.local.supervisor'),
        *(f'--workdir={workdir}', f'--group={group}', '--index=0'),
        *('--', sys.executable, '-S', str(path)),
      ],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )

  def state(self) -> dict:
    try:
      return json.loads((self.workdir / f'state/{self.name}.json').read_text())
    except FileNotFoundError:
      return {}

  def log(self) -> str:
    return (self.workdir / f'logs/{self.name}.log').read_text()

  def await_state(self, *states: str) -> dict:
    return wait_for(
      lambda: self.state().get('state') in states and self.state()
    )


# A fake node is a script that knows its heartbeat file and incarnation.
FAKE_PREAMBLE = """
import os, pathlib, signal, sys, time
args = dict(arg.removeprefix('--').split('=') for arg in sys.argv[1:])
name = f"{args['group']}-{args['index']}"
incarnation = int(os.environ['BMG_INCARNATION'])
heartbeat = pathlib.Path(args['workdir'], 'state', name + '.heartbeat').touch
"""
