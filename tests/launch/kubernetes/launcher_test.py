"""How a run gets onto a cluster: with a fake kubectl, and with none."""

import contextlib
import io
import json
import stat
import sys

import pytest
import yaml

from bmg.configs import base, schema
from bmg.configs.schema import checks
from bmg.launch import cli
from bmg.launch.kubernetes import kubectl
from bmg.launch.kubernetes import launcher as kubernetes

# Keeps a record of its calls, and of what it is given to apply. `answers` maps
# part of a command line to (exit status, output, seconds that it takes).
_FAKE = """#!{python} -S
import json, pathlib, sys, time
folder = pathlib.Path(__file__).parent
calls = folder / 'calls.jsonl'
line = ' '.join(sys.argv[1:])
with calls.open('a') as file:
  file.write(json.dumps(line) + '\\n')
for argument in sys.argv[1:]:
  if argument.startswith('--filename='):
    paths = sorted(pathlib.Path(argument.partition('=')[2]).iterdir())
    text = ''.join(path.read_text() for path in paths)
    (folder / 'applied.yaml').write_text(text)
for part, (status, output, seconds) in json.loads(
  (folder / 'answers.json').read_text()
).items():
  if part in line:
    time.sleep(seconds)
    print(output, file=sys.stderr if status else sys.stdout)
    sys.exit(status)
"""


class FakeKubectl:
  """A kubectl on PATH whose cluster takes everything, unless told otherwise."""

  def __init__(self, folder, monkeypatch):
    folder.mkdir()
    path = folder / 'kubectl'
    path.write_text(_FAKE.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv('PATH', str(folder))
    self._folder = folder
    self.answer({})

  def answer(self, answers):
    (self._folder / 'answers.json').write_text(json.dumps(answers))

  def calls(self):
    path = self._folder / 'calls.jsonl'
    if not path.exists():
      return []
    return [json.loads(line) for line in path.read_text().splitlines()]

  def applied(self):
    return (self._folder / 'applied.yaml').read_text()


@pytest.fixture
def fake(tmp_path, monkeypatch):
  return FakeKubectl(tmp_path / 'bin', monkeypatch)


@pytest.fixture
def workdir(tmp_path):
  return tmp_path / 'runs' / 'pong'


def _config(**kubernetes_fields):
  config = base.get_config()
  config.kubernetes.update(
    {
      'image': 'registry.example/bmg:1.0',
      'storage_claim': 'runs',
      'namespace': 'team',
      **kubernetes_fields,
    }
  )
  return schema.from_config_dict(config)


def _launch(workdir, dry_run=False, config=None):
  backend, config = kubernetes.Kubernetes(), config or _config()
  if dry_run:
    return 0, backend.describe(config, str(workdir))
  with contextlib.redirect_stdout(io.StringIO()) as said:
    status = backend.submit(config, str(workdir), -1)
  return status, said.getvalue()


def test_a_run_is_checked_by_the_cluster_and_then_applied(fake, workdir):
  status, said = _launch(workdir)
  assert status == 0
  version, get, check, apply = fake.calls()
  assert '/version' in version
  assert 'get jobsets' in get
  assert '--namespace=team' in get
  assert '--dry-run=server' in check
  assert '--dry-run' not in apply
  for call in (check, apply):
    assert call.startswith(f'apply --filename={workdir}/kubernetes')
  for call in fake.calls():
    assert '--request-timeout=' in call
  assert "Applied 'pong'" in said
  assert '/runs/pong' in said
  assert f'bmg stop --workdir={workdir}' in said


def test_without_kubectl_the_command_is_said(workdir, monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))
  status, said = _launch(workdir)
  assert status == 1
  assert 'no kubectl' in said
  assert f'kubectl apply --filename={workdir}/kubernetes' in said
  assert sorted(path.name for path in (workdir / 'kubernetes').iterdir()) == [
    '0-networkpolicy.yaml',
    '1-secret.yaml',
    '2-configmap.yaml',
    '3-jobset.yaml',
  ]


def test_without_a_cluster_the_command_is_said(fake, workdir):
  fake.answer({'/version': (1, 'The connection was refused', 0)})
  status, said = _launch(workdir)
  assert status == 1
  assert 'no cluster can be reached' in said
  assert 'The connection was refused' in said
  assert f'kubectl apply --filename={workdir}/kubernetes' in said
  assert len(fake.calls()) == 1


def test_a_cluster_that_does_not_answer_is_not_waited_for(
  fake, workdir, monkeypatch
):
  monkeypatch.setattr(kubectl, '_REQUEST_TIMEOUT_S', 0)
  monkeypatch.setattr(kubectl, '_COMMAND_TIMEOUT_S', 1)
  fake.answer({'/version': (0, '', 60)})
  status, said = _launch(workdir)
  assert status == 1
  assert 'has not ended within 1 s' in said
  assert 'Not applied' in said


def test_what_the_cluster_refuses_is_not_applied(fake, workdir):
  fake.answer({'--dry-run=server': (1, 'unknown action "RestartJob"', 0)})
  status, said = _launch(workdir)
  assert status == 1
  assert 'error: kubectl apply: unknown action "RestartJob"' in said
  assert '--dry-run=server' in fake.calls()[-1]


def test_a_cluster_without_jobsets_is_an_error(fake, workdir):
  fake.answer({'get jobsets': (1, 'have no resource type "jobsets"', 0)})
  status, said = _launch(workdir)
  assert status == 1
  assert 'no resource type "jobsets"' in said
  assert not any('apply' in call for call in fake.calls())


def test_a_run_that_goes_on_is_left_alone(fake, workdir):
  fake.answer({'get jobsets': (0, 'pong/', 0)})
  with pytest.raises(cli.UsageError, match='stop it first: python -m bmg stop'):
    _launch(workdir)
  assert not any('delete' in c or 'apply' in c for c in fake.calls())
  assert not workdir.exists()


@pytest.mark.parametrize('state', ['Completed', 'Failed'])
def test_a_run_that_is_over_makes_way_for_the_next_launch(fake, workdir, state):
  fake.answer({'get jobsets': (0, f'pong/{state}', 0)})
  status, _ = _launch(workdir)
  assert status == 0
  _, _, delete, check, apply = fake.calls()
  assert 'delete jobsets.jobset.x-k8s.io pong' in delete
  assert '--cascade=foreground' in delete
  assert check.startswith('apply')
  assert apply.startswith('apply')


def test_a_dry_run_says_what_would_be_applied_and_does_nothing(fake, workdir):
  status, said = _launch(workdir, dry_run=True)
  assert status == 0
  assert not workdir.exists()
  assert fake.calls() == []
  kinds = [each['kind'] for each in yaml.safe_load_all(said)]
  assert kinds == ['NetworkPolicy', 'Secret', 'ConfigMap', 'JobSet']


def test_a_dry_run_of_a_run_is_to_the_letter(fake, workdir):
  _launch(workdir)
  _, said = _launch(workdir, dry_run=True)
  assert said == fake.applied()


def test_each_run_has_a_token_and_keeps_it(fake, workdir):
  def token(folder):
    path = folder / 'kubernetes' / '1-secret.yaml'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return yaml.safe_load(path.read_text())['stringData']['token']

  _launch(workdir)
  first = token(workdir)
  assert len(first) == 64
  _launch(workdir)
  assert token(workdir) == first
  _launch(workdir.parent / 'boxing')
  assert token(workdir.parent / 'boxing') != first


@pytest.mark.parametrize('text', ['', 'stringData: 3', '[', 'a: b'])
def test_a_broken_token_is_made_anew(fake, workdir, text):
  path = workdir / 'kubernetes' / '1-secret.yaml'
  path.parent.mkdir(parents=True)
  path.write_text(text)
  _launch(workdir)
  assert yaml.safe_load(path.read_text())['stringData']['token']


def test_a_field_that_does_not_do_stops_it_before_anything_is_there(
  fake, workdir
):
  with pytest.raises(checks.ConfigError, match=r'kubernetes\.image'):
    _launch(workdir, config=_config(image=''))
  assert not workdir.exists()
  assert fake.calls() == []


def test_a_folder_that_cannot_be_written_to_is_named(fake, workdir):
  workdir.parent.mkdir()
  workdir.write_text('')
  with pytest.raises(cli.UsageError, match='cannot be written to'):
    _launch(workdir)


def test_the_folder_names_the_run(fake, tmp_path):
  _, said = _launch(tmp_path / 'Pong_1', dry_run=True)
  names = {each['metadata']['name'] for each in yaml.safe_load_all(said)}
  (name,) = names
  assert name.startswith('pong-1-')
