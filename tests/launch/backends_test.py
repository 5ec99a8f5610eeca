"""`bmg stop` and `bmg watch` on every backend, with stand-ins for clusters."""

import os
import signal
import subprocess
import sys

import pytest

from bmg.configs import schema
from bmg.launch import backends, cli
from bmg.launch.commands import stop, train, watch
from bmg.launch.local import launcher as local
from bmg.launch.run import files
from tests.launch import processes

_RECIPE = f'--config={processes.ROOT}/configs/atari_local.py'
# Jobs and JobSets are files beside them, with their state in it.
_COMMANDS = {
  'kubectl': """
case "$*" in
  *apply*dry-run*) ;;
  apply*) printf pong/ > job ;;
  *get*jobsets*) test ! -e job || cat job ;;
  *delete*) test ! -e refuse || { echo forbidden >&2; exit 1; }; rm job ;;
esac
""",
  'sbatch': 'case $2 in *core*) n=17;; *) n=18;; esac; echo R > $n; echo $n',
  'squeue': """
for job in 17 18; do
  case "$*" in *"-j $job "*) test ! -e $job || echo RUNNING ;; esac
done
""",
  'scancel': 'rm -f $2; test ! -e ending || cp ending "$(cat launch)"',
}


class Cluster:
  """Slurm and Kubernetes, of which `down` makes both silent."""

  def __init__(self, folder, monkeypatch):
    folder.mkdir()
    for name, script in _COMMANDS.items():
      path = folder / name
      path.write_text(
        f'#!/bin/sh\ncd {folder}; echo "{name} $*" >> calls\n'
        f'test ! -e down || {{ echo no answer >&2; exit 1; }}\n{script}\n'
      )
      path.chmod(0o755)
    self.folder = folder
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')

  def calls(self):
    return (self.folder / 'calls').read_text()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
  for backend in backends.BACKENDS.values():
    monkeypatch.setattr(backend, 'period_s', 0.0, raising=False)
  return Cluster(tmp_path / 'bin', monkeypatch)


def _submit(tmp_path, launcher):
  workdir = str(tmp_path / 'pong')
  arguments = [
    *(_RECIPE, f'--workdir={workdir}', f'--launcher={launcher}'),
    *('--kubernetes.image=registry.example/bmg:1', '--kubernetes.namespace=rl'),
    '--kubernetes.storage_claim=runs',
  ]
  assert train.main(['train', *arguments]) == 0
  assert files.read_submission(workdir).backend == launcher
  return workdir


def _stop(workdir, timeout_s=20):
  return stop.main(['stop', f'--workdir={workdir}', f'--timeout_s={timeout_s}'])


def _watch(workdir):
  return watch.main(['watch', f'--workdir={workdir}'])


def test_stopping_a_run_on_kubernetes_deletes_its_job_set(
  cluster, tmp_path, capsys
):
  workdir = _submit(tmp_path, 'kubernetes')
  capsys.readouterr()
  assert _stop(workdir) == 0
  said = capsys.readouterr().out
  assert "the JobSet 'pong' in the namespace 'rl'" in said
  assert f'Stopped: {workdir}' in said
  assert (
    'kubectl --namespace=rl delete jobsets.jobset.x-k8s.io pong '
    '--ignore-not-found --cascade=foreground --wait=false'
  ) in cluster.calls()
  assert not (cluster.folder / 'job').exists()
  assert _stop(workdir) == 0
  assert 'Not running' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('trouble', 'mentioned'),
  [
    ('down', 'kubectl get: no answer'),
    ('refuse', 'kubectl delete: forbidden'),
    ('missing', "no command 'kubectl'"),
  ],
)
def test_a_stop_that_kubernetes_does_not_take_is_an_error(
  trouble, mentioned, cluster, tmp_path, monkeypatch, capsys
):
  workdir = _submit(tmp_path, 'kubernetes')
  capsys.readouterr()
  (cluster.folder / trouble).touch()
  if trouble == 'missing':
    monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(cli.UsageError, match=mentioned) as raised:
    _stop(workdir)
  assert '\n' not in str(raised.value)
  assert capsys.readouterr().out == ''
  assert (cluster.folder / 'job').exists()


def test_a_job_set_that_still_stops_is_not_called_stopped(
  cluster, tmp_path, capsys
):
  workdir = _submit(tmp_path, 'kubernetes')
  (cluster.folder / 'rm').write_text('#!/bin/sh\n')
  (cluster.folder / 'rm').chmod(0o755)
  assert _stop(workdir, timeout_s=0.1) == 1
  assert 'Still stopping after 0.1 s' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('state', 'status', 'said'),
  [
    ('pong/Completed', 0, 'over: finished'),
    ('pong/Failed', 1, 'over: failed'),
    ('', 0, "over: stopped (there is no JobSet 'pong' in the namespace 'rl')"),
  ],
)
def test_watching_a_run_on_kubernetes_ends_with_it(
  state, status, said, cluster, tmp_path, monkeypatch, capsys
):
  workdir = _submit(tmp_path, 'kubernetes')
  # It goes on at first.
  monkeypatch.setattr(
    watch.time, 'sleep', lambda _: (cluster.folder / 'job').write_text(state)
  )
  assert _watch(workdir) == status
  assert said in ' '.join(capsys.readouterr().out.split())


def test_a_run_on_kubernetes_of_which_nothing_is_known_is_not_watched(
  cluster, tmp_path
):
  workdir = _submit(tmp_path, 'kubernetes')
  (cluster.folder / 'down').touch()
  with pytest.raises(cli.UsageError, match='no answer'):
    _watch(workdir)


def _end_with_jobs(cluster, workdir, state):
  """Has the launch, which runs, end in `state` when its jobs are cancelled."""
  path = files.launch(workdir)
  files.end_launch(workdir, state)
  (cluster.folder / 'ending').write_text(path.read_text())
  (cluster.folder / 'launch').write_text(str(path))
  files.end_launch(workdir, files.RUNNING)


@pytest.mark.parametrize(
  ('state', 'status', 'said'),
  [
    (files.STOPPED, 0, 'Stopped: '),
    (files.RUNNING, 1, 'killed before all was saved'),
  ],
)
def test_stopping_a_run_on_slurm_cancels_its_jobs(
  state, status, said, cluster, tmp_path, capsys
):
  workdir = _submit(tmp_path, 'slurm')
  _end_with_jobs(cluster, workdir, state)
  assert _stop(workdir) == status
  assert said in capsys.readouterr().out
  for job in ('17', '18'):
    assert f'scancel --quiet {job}' in cluster.calls()
  assert files.stop_request(workdir).exists()
  assert _stop(workdir) == 0
  assert 'Not running' in capsys.readouterr().out


def test_a_slurm_that_does_not_answer_stops_nothing(cluster, tmp_path):
  workdir = _submit(tmp_path, 'slurm')
  (cluster.folder / 'down').touch()
  with pytest.raises(cli.UsageError, match='squeue: no answer'):
    _stop(workdir)
  assert 'scancel' not in cluster.calls()
  assert not files.stop_request(workdir).exists()


@pytest.mark.parametrize(
  ('state', 'status'), [(files.FINISHED, 0), (files.FAILED, 1)]
)
@pytest.mark.parametrize('is_down', [True, False])
def test_watching_a_run_on_slurm_ends_with_it(
  state, status, is_down, cluster, tmp_path, monkeypatch, capsys
):
  workdir = _submit(tmp_path, 'slurm')
  # Its files can be seen where Slurm cannot be asked.
  (cluster.folder / ('down' if is_down else 'up')).touch()

  def end(_):
    for job in ('17', '18'):
      (cluster.folder / job).unlink(missing_ok=True)
    files.end_launch(workdir, state)

  monkeypatch.setattr(watch.time, 'sleep', end)
  assert _watch(workdir) == status
  assert f'The run is over: {state}' in capsys.readouterr().out


_LAUNCHER = """
import signal, sys, time
from bmg.launch.local import launcher
from bmg.launch.run import files
workdir, name = sys.argv[1:]
def end(*_):
  files.end_launch(workdir, files.STOPPED)
  sys.exit()
signal.signal(signal.SIGTERM, end)
with launcher.lock(workdir):
  files.write_submission(workdir, name)
  files.begin_launch(workdir)
  print('started', flush=True)
  while True:
    time.sleep(0.05)
"""


@pytest.fixture
def local_run(tmp_path):
  """Starts a launcher that does nothing but stop."""
  config = schema.to_dict(processes.small_config())
  files.write_json(files.config(str(tmp_path)), config)
  started = []

  def start(name):
    command = (sys.executable, '-c', _LAUNCHER, str(tmp_path), name)
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    started.append(process)
    assert process.stdout.readline() == b'started\n'
    return process

  yield start
  for process in started:
    process.kill()
    process.wait()


@pytest.mark.parametrize('name', ['local', 'threads'])
def test_stopping_a_run_on_this_machine_asks_its_launcher(
  name, local_run, tmp_path, capsys
):
  process = local_run(name)
  assert _stop(tmp_path) == 0
  assert f'Stopped: {tmp_path}' in capsys.readouterr().out
  assert process.wait(10) == 0
  assert _stop(tmp_path) == 0
  assert _watch(tmp_path) == 0
  said = capsys.readouterr().out
  assert 'Not running' in said
  assert 'The run is over: stopped.' in said


def test_a_run_whose_launcher_was_killed_is_over(local_run, tmp_path, capsys):
  process = local_run('local')
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert _watch(tmp_path) == 1
  assert _stop(tmp_path) == 0
  assert 'its launcher was killed' in capsys.readouterr().out


def test_a_launcher_elsewhere_is_left_alone(tmp_path):
  config = schema.to_dict(processes.small_config())
  files.write_json(files.config(str(tmp_path)), config)
  local.lock(str(tmp_path)).close()
  files.begin_launch(str(tmp_path))
  with pytest.raises(cli.UsageError, match=f'pid {os.getpid()}, is not on'):
    _stop(tmp_path)


@pytest.mark.parametrize(
  ('path', 'launches', 'name'),
  [
    ('state/slurm.json', 1, 'slurm'),
    ('kubernetes/3-jobset.yaml', 0, 'kubernetes'),
    ('kubernetes/3-jobset.yaml', 1, 'local'),
    ('config.json', 1, 'local'),
  ],
)
def test_older_folders_tell_their_backend(path, launches, name, tmp_path):
  files.write_json(tmp_path / path, {})
  for _ in range(launches):
    files.begin_launch(str(tmp_path))
  assert backends.of_run(str(tmp_path)) is backends.BACKENDS[name]
