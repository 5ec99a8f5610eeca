import json
import os
import signal
import time

import pytest

from bmg.launch import cli
from bmg.launch.commands import sweep
from bmg.launch.run import files
from bmg.launch.sweep import cells, launchers, queues, scheduler
from tests.launch import processes

_RECIPE = f'--config={processes.ROOT}/configs/atari_local.py'
_NUM_FRAMES = 2000
_GONE = 'its job has gone before the run finished'


def _write_script(path, script):
  path.write_text(f'#!/bin/sh\n{script}')
  path.chmod(0o755)


class Cluster:
  """A fake Slurm: jobs are files in a folder, submitted by a fake train."""

  def __init__(self, folder, monkeypatch):
    self.jobs = folder / 'jobs'
    self.jobs.mkdir()
    scripts = {
      'squeue': f'test ! -e {folder}/down && ls {self.jobs}',
      'scancel': f'rm -f {self.jobs}/$2',
      'stop': f'cd "${{1#--workdir=}}" && rm {self.jobs}/$(cat core)',
      'train': f"""
workdir="${{1#--workdir=}}"; mkdir -p "$workdir/state"; cd "$workdir"
test ! -e refuse || {{ echo 'error: sbatch: no'; exit 2; }}
echo x >> starts; n=$(wc -l < starts)
echo $n-core > core; touch {self.jobs}/$n-core {self.jobs}/$n-actors
echo '{{"number": 0, "state": "waiting"}}' > state/launch.json
echo "{{\\"core_job\\": \\"$n-core\\", \\"actor_job\\": \\"$n-actors\\"}}" \\
  > state/slurm.json
""",
    }
    for name, script in scripts.items():
      _write_script(folder / name, script)
    self.down = folder / 'down'
    self.workdir = folder / 'cell'
    self.workdir.mkdir()
    self.cell = cells.Cell(
      'pong',
      1,
      str(self.workdir),
      (str(folder / 'train'), f'--workdir={self.workdir}'),
    )
    monkeypatch.setattr(
      queues.SlurmQueue,
      'stop_command',
      lambda _, workdir: (str(folder / 'stop'), f'--workdir={workdir}'),
    )
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')

  def launcher(self):
    return launchers.ClusterLauncher(
      _NUM_FRAMES, queues.SlurmQueue(0.05), period_s=0.0
    )

  def await_ending(self, launcher):
    return processes.wait_for(lambda: launcher.poll(self.cell))

  def await_submission(self, launcher):
    launcher.start(self.cell)
    path = files.jobs(str(self.workdir))
    processes.wait_for(lambda: path.exists() and not launcher.poll(self.cell))
    processes.wait_for(lambda: launcher.adopt(self.cell))

  def finish(self):
    files.write_json(
      files.finished(str(self.workdir)), {'num_frames': _NUM_FRAMES}
    )
    (self.workdir / 'evaluation.jsonl').write_text(
      json.dumps({'num_frames': _NUM_FRAMES}) + '\n'
    )


@pytest.fixture
def cluster(tmp_path, monkeypatch):
  return Cluster(tmp_path, monkeypatch)


def test_a_submitted_cell_is_followed_to_its_end(cluster):
  launcher = cluster.launcher()
  assert not launcher.adopt(cluster.cell)
  assert launcher.obstacle(cluster.cell) is None
  cluster.await_submission(launcher)
  assert launcher.poll(cluster.cell) is None
  # Another sweep finds it running.
  assert cluster.launcher().adopt(cluster.cell)
  cluster.finish()
  assert cluster.await_ending(launcher) == (cells.DONE, '', False)


def test_a_cell_whose_job_has_gone_is_submitted_again(cluster):
  launcher = cluster.launcher()
  cluster.await_submission(launcher)
  # While Slurm does not answer, nothing is known to have gone.
  cluster.down.touch()
  (cluster.jobs / '1-core').unlink()
  until = time.monotonic() + 0.3
  while time.monotonic() < until:
    assert launcher.poll(cluster.cell) is None
  cluster.down.unlink()
  ending = cluster.await_ending(launcher)
  assert ending == (cells.FAILED, _GONE, False)
  # Its actors are seen to first.
  assert 'last jobs' in launcher.obstacle(cluster.cell)
  processes.wait_for(lambda: launcher.obstacle(cluster.cell) is None)
  assert not list(cluster.jobs.iterdir())
  cluster.await_submission(launcher)
  assert (cluster.workdir / 'starts').read_text() == 'x\nx\n'


def test_a_submitted_cell_that_failed_for_good_is_hopeless(cluster):
  launcher = cluster.launcher()
  cluster.await_submission(launcher)
  files.write_json(
    cluster.workdir / 'state/learner-0.json',
    {
      'name': 'learner-0',
      'state': 'failed',
      'last_exit': 'exit status 3',
      'last_error': 'FatalError: NaN',
      'time': time.time(),
    },
  )
  files.end_launch(str(cluster.workdir), files.FAILED)
  ending = cluster.await_ending(launcher)
  assert ending.hopeless
  assert 'FatalError: NaN' in ending.reason


def test_a_submitted_cell_is_stopped(cluster):
  launcher = cluster.launcher()
  cluster.await_submission(launcher)
  launcher.stop(cluster.cell)
  assert cluster.await_ending(launcher).state == cells.STOPPED


def test_a_refused_submission_may_be_tried_again(cluster):
  (cluster.workdir / 'refuse').touch()
  launcher = cluster.launcher()
  launcher.start(cluster.cell)
  ending = cluster.await_ending(launcher)
  assert ending == (cells.FAILED, 'sbatch: no', False)


class _Endless:
  """A launcher, and the display of its sweep, whose terminal is closed."""

  detached = True

  def __init__(self):
    self.said = []
    self.started = []

  def adopt(self, cell):
    return cell.game == 'pong'

  def obstacle(self, cell):
    return None

  def start(self, cell):
    self.started.append(str(cell))

  def poll(self, cell):
    return None

  def changed(self, status):
    pass

  def update(self, statuses):
    os.kill(os.getpid(), signal.SIGHUP)

  def say(self, message):
    self.said.append(message)


def test_submitted_cells_outlive_the_terminal(tmp_path):
  endless = _Endless()
  result = scheduler.Sweep(
    str(tmp_path),
    cells.make_cells(str(tmp_path), ('pong', 'boxing'), (1,)),
    _NUM_FRAMES,
    endless,
    endless,
    max_running=2,
    max_retries=0,
    retry_delay_s=0.0,
    grace_s=1.0,
  ).run()
  assert result == 0
  assert endless.said == ['The cells go on without this sweep.']
  # The other one was found running.
  assert endless.started == ['boxing-1']


def test_job_sets_of_kubernetes_are_looked_at_and_deleted(
  tmp_path, monkeypatch
):
  _write_script(
    tmp_path / 'kubectl',
    f"""
case $3 in
  jobsets*) test $2 = get && echo 'a-1/ pong-1/Completed boxing-1/ ' ;;
esac
echo "$@" >> {tmp_path}/calls
""",
  )
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  queue = queues.KubernetesQueue('mine')
  queue.check()
  assert queue.look('/runs/boxing-1').core
  assert not queue.look('/runs/pong-1').any
  assert not queue.look('/runs/alien-1').any
  queue.clear('/runs/boxing-1')
  get, delete = (tmp_path / 'calls').read_text().splitlines()
  assert get.startswith('--namespace=mine get jobsets')
  assert 'delete jobsets.jobset.x-k8s.io boxing-1' in delete


@pytest.mark.parametrize(
  ('launcher', 'command'), [('slurm', 'squeue'), ('kubernetes', 'kubectl')]
)
def test_a_cluster_that_cannot_be_reached_is_named(
  launcher, command, tmp_path, monkeypatch
):
  monkeypatch.setenv('PATH', str(tmp_path))
  workdir = tmp_path / 'sweep'
  arguments = ['--games=pong', f'--workdir={workdir}', _RECIPE]
  with pytest.raises(
    cli.UsageError, match=f'--launcher={launcher}: .*{command}'
  ):
    sweep.main(['sweep', *arguments, f'--launcher={launcher}'])
  assert not workdir.exists()
