"""The doctor finds what is wrong, and nothing stops it."""

import time

import psutil
import pytest

from bmg.launch.commands import doctor, health_checks

_FAKE_CHECK = 'fake_check'


@pytest.fixture
def run_fake(tmp_path, monkeypatch):
  """Returns a function that runs `code` in the place of a check."""
  monkeypatch.chdir(tmp_path)

  def run(code: str, deadline_s: float = 60) -> doctor.Report:
    (tmp_path / f'{_FAKE_CHECK}.py').write_text(code)
    return doctor.run_check('Reverb', deadline_s, module=_FAKE_CHECK)

  return run


@pytest.mark.system
@pytest.mark.parametrize(
  'name', ['Python', 'imports', 'ROMs', 'Launchpad', 'Reverb', 'ports']
)
def test_a_good_environment_is_found_good(name):
  report = doctor.run_check(name)
  assert report.ok, report


def test_a_check_that_hangs_is_ended_with_its_children(run_fake, tmp_path):
  report = run_fake(
    'import pathlib, subprocess, time\n'
    'child = subprocess.Popen(["sleep", "1000"])\n'
    'pathlib.Path("child").write_text(str(child.pid))\n'
    'time.sleep(1000)',
    deadline_s=3,
  )
  assert not report.ok
  assert report.found == 'no end after 3 s'
  child = int((tmp_path / 'child').read_text())
  deadline = time.monotonic() + 5
  while psutil.pid_exists(child):
    if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
      break
    assert time.monotonic() < deadline, 'the child lives on'
    time.sleep(0.05)


def test_a_check_that_crashes_is_reported(run_fake):
  report = run_fake('import os; os.kill(os.getpid(), 11)')
  assert not report.ok
  assert 'exit status -11' in report.found


def test_the_report_is_found_among_other_output(run_fake):
  report = run_fake(
    'print(\'noise\\n{"ok": true, "found": "a server"}\\nmore noise\')'
  )
  assert report.ok
  assert report.found == 'a server'


def test_the_table_names_the_cure_of_what_failed_alone():
  table = doctor.make_table(
    [
      doctor.Report('disk', True, 'much', 'buy one'),
      doctor.Report('ports', False, 'no [free] port', 'end servers'),
    ]
  )
  names, results, found = (list(column.cells) for column in table.columns)
  assert names == ['disk', 'ports']
  assert 'ok' in results[0]
  assert 'failed' in results[1]
  assert 'buy one' not in found[0]
  assert 'no \\[free] port' in found[1]
  assert 'end servers' in found[1]


@pytest.mark.parametrize('all_well', [True, False])
def test_the_exit_status_tells_whether_a_check_failed(
  monkeypatch, capsys, all_well
):
  monkeypatch.setattr(
    doctor,
    'run_check',
    lambda name: doctor.Report(name, all_well or name != 'ROMs', 'x', 'y'),
  )
  assert doctor.main(['doctor']) == (0 if all_well else 1)
  assert 'memory' in capsys.readouterr().out


def test_pins_name_wrong_and_missing_packages(tmp_path, monkeypatch):
  lock = tmp_path / 'requirements.lock'
  lock.write_text('jax==0.0.1 \\\n    --hash=sha256:0\nno-such-thing==1.0\n')
  monkeypatch.setattr(health_checks, '_LOCK_FILE', lock)
  with pytest.raises(RuntimeError, match=r'jax is .*, not 0\.0\.1') as error:
    health_checks.CHECKS['pins'].run()
  assert 'no-such-thing is missing, not 1.0' in str(error.value)


def test_sources_without_bytecode_are_found(tmp_path, monkeypatch):
  package = tmp_path / 'jax'
  package.mkdir()
  (package / 'module.py').touch()
  monkeypatch.setattr(
    health_checks.sysconfig, 'get_path', lambda name: str(tmp_path)
  )
  check = health_checks.CHECKS['bytecode'].run
  with pytest.raises(RuntimeError, match='1 of 1 modules are not compiled'):
    check()
  cache = package / '__pycache__'
  cache.mkdir()
  (cache / 'module.cpython-310.pyc').touch()
  assert '1 modules' in check()
