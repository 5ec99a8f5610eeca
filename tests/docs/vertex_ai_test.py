"""The example for Vertex AI, with a stand-in for Google's cloud."""

import json
import os
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parents[2]

# What Launchpad's launcher for Vertex AI uses of `xmanager`. An experiment
# writes down the jobs that it is given, and where their containers are.
_STAND_IN = """
import contextlib, json, os, shutil, types

class Record(types.SimpleNamespace):
  def __init__(self, **fields):
    super().__init__(**fields)

GiB = 2**30

class JobRequirements(Record):
  replicas = 1

def CommandList(commands):
  return commands

class PythonContainer(Record): pass
class Packageable(Record): pass
class Job(Record): pass
class JobGroup(Record): pass

class Caip(Record):
  class Spec: pass

class Experiment:
  def package(self, packageables):
    return [each.executable_spec for each in packageables]

  def add(self, group):
    out = os.environ['STAND_IN_OUT']
    jobs = []
    for number, job in vars(group).items():
      folder = os.path.join(out, number)
      os.makedirs(folder)
      shutil.copy(os.path.join(job.executable.path, 'job.pkl'), folder)
      jobs.append({'folder': folder, **vars(job.executor.requirements)})
    with open(os.path.join(out, 'jobs.json'), 'w') as file:
      json.dump(jobs, file)

@contextlib.contextmanager
def create_experiment(experiment_title):
  yield Experiment()
"""

# What a worker does: it reads its function and has its addresses resolved.
_WORKER = """
import sys
import cloudpickle
with open(sys.argv[1], 'rb') as file:
  functions = cloudpickle.load(file)
print(len(functions))
for function in functions:
  node = function.__self__
  for address in node.addresses:
    print(address.resolve())
"""


def _run(command, **environment):
  return subprocess.run(
    [sys.executable, *command],
    env={**os.environ, **environment},
    capture_output=True,
    check=True,
    text=True,
    timeout=240,
  ).stdout


def test_launchpads_own_launcher_takes_the_program(tmp_path):
  package = tmp_path / 'stand_in' / 'xmanager'
  package.mkdir(parents=True)
  (package / '__init__.py').write_text('')
  for name in ('xm.py', 'xm_local.py'):
    (package / name).write_text(_STAND_IN)
  # A small source, or all that lies here would be copied into containers.
  source = tmp_path / 'source'
  (source / 'docs/examples').mkdir(parents=True)
  example = source / 'docs/examples/vertex_ai.py'
  example.write_text((_ROOT / 'docs/examples/vertex_ai.py').read_text())
  (source / 'requirements.lock').write_text('')
  path = os.pathsep.join([str(package.parent), str(_ROOT)])
  out = str(tmp_path / 'out')
  _run([str(example), 'bucket', 'pong'], STAND_IN_OUT=out, PYTHONPATH=path)
  jobs = json.loads((tmp_path / 'out/jobs.json').read_text())
  # Vertex AI wants a first pool of one worker, and no more than four.
  assert jobs[0]['replicas'] == 1
  assert len(jobs) <= 4
  # Learner, replay, evaluator, and the recipe's actors.
  assert sum(job['replicas'] for job in jobs) == 3 + 48
  assert any(job.get('a100') == 1 for job in jobs)
  cluster = {
    f'workerpool{index}': [
      f'worker-{index}-{replica}:2222' for replica in range(job['replicas'])
    ]
    for index, job in enumerate(jobs)
  }
  resolved = []
  for job in jobs:
    count, *addresses = _run(
      ['-c', _WORKER, f'{job["folder"]}/job.pkl'],
      CLUSTER_SPEC=json.dumps({'cluster': cluster}),
      PYTHONPATH=path,
    ).split()
    assert int(count) == job['replicas']
    resolved += addresses
  assert len(set(resolved)) == 2
  assert all(address.endswith(':2222') for address in resolved)
