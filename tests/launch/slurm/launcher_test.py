import contextlib
import io
import json
import re
import sys

import pytest

from bmg.configs import schema
from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.run import files, topology
from bmg.launch.slurm import launcher as slurm
from tests.launch import processes


def _config(**groups):
  values = schema.to_dict(processes.small_config(num_actors=5))
  for name, fields in groups.items():
    group = values
    *path, last = name.split('__')
    for part in path:
      group = group[part]
    group[last].update(fields)
  return schema.from_config_dict(values)


def _options(script):
  return re.findall(r'^#SBATCH (.*)$', script, re.MULTILINE)


def test_core_job_asks_for_the_sum_on_one_node(tmp_path):
  config = _config(
    cluster__replay={'cpus': 2, 'memory_gb': 10.0},
    cluster__learner={'cpus': 3, 'memory_gb': 20.5, 'accelerators': 2},
    cluster__evaluator={'cpus': 1, 'memory_gb': 1.0},
    slurm={'partition': 'gpu', 'account': 'rl'},
  )
  options = _options(slurm.core_script(config, str(tmp_path)))
  assert {
    '--nodes=1',
    '--cpus-per-task=6',
    '--mem=32256M',
    '--gpus=2',
    '--partition=gpu',
    '--account=rl',
    '--requeue',
  } <= set(options)
  assert not any(option.startswith('--time') for option in options)


def test_core_job_on_three_nodes_asks_for_the_largest(tmp_path):
  config = _config(
    cluster__replay={'cpus': 2, 'memory_gb': 10.0},
    cluster__learner={'cpus': 3, 'memory_gb': 4.0, 'accelerators': 0},
    slurm={'core_nodes': 3},
  )
  options = _options(slurm.core_script(config, str(tmp_path)))
  assert {'--nodes=3', '--cpus-per-task=3', '--mem=10240M'} <= set(options)
  assert not any(option.startswith('--gpus') for option in options)
  relatives = {
    option
    for node in slurm.core_nodes(config)
    for option in slurm.step_prefix(config, node)
    if option.startswith('--relative')
  }
  assert len(relatives) == 3


def test_each_process_of_the_core_job_gets_a_node_or_none(tmp_path):
  config = _config(replay={'num_servers': 3}, slurm={'core_nodes': 5})
  options = _options(slurm.core_script(config, str(tmp_path)))
  assert '--nodes=5' in options
  config = _config(replay={'num_servers': 3}, slurm={'core_nodes': 3})
  with pytest.raises(checks.ConfigError, match='must be 1, or 5 for replay-0'):
    slurm.core_script(config, str(tmp_path))


def test_learner_hosts_get_nodes_of_their_own(tmp_path):
  config = _config(learner={'num_hosts': 2}, slurm={'core_nodes': 4})
  assert '--nodes=4' in _options(slurm.core_script(config, str(tmp_path)))
  config = _config(learner={'num_hosts': 2})
  with pytest.raises(checks.ConfigError, match=r'core_nodes.* must be 4 for'):
    slurm.core_script(config, str(tmp_path))


def test_a_relay_gets_what_an_actor_gets(tmp_path):
  config = _config(cluster={'actors_per_task': 3, 'relays': True})
  options = _options(slurm.actors_script(config, str(tmp_path)))
  assert {'--cpus-per-task=4', '--mem=8192M'} <= set(options)


def test_actors_are_cut_into_tasks(tmp_path):
  config = _config(
    cluster={'actors_per_task': 2},
    cluster__actor={'cpus': 3, 'memory_gb': 1.5},
    slurm={
      'partition': 'cpu',
      'actor_partition': 'spot',
      'options': ('--exclude=n7',),
      'actor_options': ('--nice=100',),
    },
  )
  assert topology.num_tasks(schema.to_dict(config), topology.ACTOR) == 3
  options = _options(slurm.actors_script(config, str(tmp_path)))
  assert {
    '--array=0-2',
    '--cpus-per-task=6',
    '--mem=3072M',
    '--partition=spot',
    '--exclude=n7',
    '--nice=100',
  } <= set(options)
  core = _options(slurm.core_script(config, str(tmp_path)))
  assert '--partition=cpu' in core
  assert '--nice=100' not in core


def test_time_limit_and_notice(tmp_path):
  config = _config(cluster={'time_limit_minutes': 90, 'notice_s': 61.5})
  options = _options(slurm.core_script(config, str(tmp_path)))
  assert {'--time=90', '--signal=B:USR1@62'} <= set(options)


def test_setup_comes_before_python(tmp_path):
  config = _config(
    slurm={'setup': 'module load python', 'python': '/opt/my env/python'}
  )
  lines = slurm.core_script(config, str(tmp_path)).splitlines()
  assert lines.index('module load python') < len(lines) - 1
  assert lines[-1].startswith(
    "exec '/opt/my env/python' -m bmg.launch.slurm.head"
  )


def test_a_folder_that_slurm_would_misread_is_refused():
  with pytest.raises(checks.ConfigError, match='%'):
    slurm.core_script(_config(), '/runs/50%')


class FakeSlurm:
  """Commands that answer as Slurm does, and note how they were called."""

  def __init__(self, folder, monkeypatch):
    self._folder = folder
    monkeypatch.setenv('PATH', str(folder))
    self.answer('squeue', 'echo')
    self.answer('scancel', 'true')
    self.answer('sbatch', 'echo 17')

  def answer(self, command, script):
    path = self._folder / command
    path.write_text(
      f'#!/bin/sh\necho "{command} $*" >> {self._folder}/calls\n{script}\n'
    )
    path.chmod(0o755)

  def calls(self):
    return (self._folder / 'calls').read_text()


@pytest.fixture
def fake(tmp_path, monkeypatch):
  folder = tmp_path / 'bin'
  folder.mkdir()
  return FakeSlurm(folder, monkeypatch)


def _launch(workdir, dry_run=False):
  backend, config = slurm.Slurm(), _config()
  if dry_run:
    return 0, backend.describe(config, str(workdir))
  with contextlib.redirect_stdout(io.StringIO()) as said:
    status = backend.submit(config, str(workdir), -1)
  return status, said.getvalue()


def test_both_jobs_are_submitted_and_noted(tmp_path, fake):
  fake.answer('sbatch', 'case $2 in *core*) echo "17;here";; *) echo 18;; esac')
  status, said = _launch(tmp_path)
  assert status == 0
  assert 'job 17' in said
  assert json.loads(files.jobs(str(tmp_path)).read_text()) == {
    'core_job': '17',
    'actor_job': '18',
  }
  script = (tmp_path / 'slurm' / 'core.sbatch').read_text()
  assert f'exec {sys.executable} -m bmg.launch.slurm.head' in script
  # Actors wait for the core job.
  assert files.launch_state(str(tmp_path)) == files.WAITING


def test_dry_run_submits_and_writes_nothing(tmp_path, fake):
  workdir = tmp_path / 'run'
  status, said = _launch(workdir, dry_run=True)
  assert status == 0
  assert '--array=0-4' in said
  assert not workdir.exists()
  assert not (tmp_path / 'bin' / 'calls').exists()


def test_a_run_that_is_on_slurm_is_not_submitted_again(tmp_path, fake):
  _launch(tmp_path)
  fake.answer('squeue', 'echo PENDING')
  with pytest.raises(cli.UsageError, match='job 17 is pending'):
    _launch(tmp_path)
  fake.answer(
    'squeue',
    'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1',
  )
  assert _launch(tmp_path)[0] == 0


def test_half_a_submission_is_taken_back(tmp_path, fake):
  fake.answer(
    'sbatch',
    'case $2 in *core*) echo 17;; *) echo "invalid partition: spot" >&2; '
    'exit 1;; esac',
  )
  with pytest.raises(cli.UsageError, match='invalid partition: spot'):
    _launch(tmp_path)
  assert 'scancel --quiet 17' in fake.calls()
  assert not files.jobs(str(tmp_path)).exists()


def test_a_machine_without_slurm_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(cli.UsageError, match="no command 'sbatch'"):
    _launch(tmp_path)
