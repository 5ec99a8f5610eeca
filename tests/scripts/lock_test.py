"""The lock files agree with setup.py and with each other."""

import pathlib
import re
import runpy

import pytest
import setuptools

from bmg.launch.commands import health_checks

_REPOSITORY = pathlib.Path(__file__).parents[2]
_VARIANTS = ('cpu', 'cuda', 'tpu')


def _read(name: str) -> str:
  return (_REPOSITORY / name).read_text()


@pytest.fixture(scope='module')
def declared():
  """The arguments that setup.py gives to setuptools."""
  caught = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setuptools, 'setup', caught.update)
    patch.chdir(_REPOSITORY)
    runpy.run_path('setup.py')
  return caught


def _names(requirements: list[str]) -> set[str]:
  return {re.match(r'[\w.-]+', item).group().lower() for item in requirements}


def test_everything_declared_is_locked(declared):
  runtime = _names(declared['install_requires'])
  development = _names(declared['extras_require']['dev'])
  locked = health_checks.read_pins(_read('requirements.lock'))
  assert runtime | development <= locked.keys()
  for variant in _VARIANTS:
    image = health_checks.read_pins(_read(f'requirements-{variant}.lock'))
    assert runtime <= image.keys()
    assert not (development - runtime) & image.keys() - {'typing-extensions'}


def test_exact_versions_declared_are_those_locked(declared):
  locked = health_checks.read_pins(_read('requirements.lock'))
  for item in declared['install_requires']:
    name, exact, version = item.partition('==')
    assert not exact or locked[name.lower()] == version


@pytest.mark.parametrize('variant', _VARIANTS)
def test_image_and_development_lock_the_same_versions(variant):
  locked = health_checks.read_pins(_read('requirements.lock'))
  image = health_checks.read_pins(_read(f'requirements-{variant}.lock'))
  shared = locked.keys() & image.keys()
  assert {n: image[n] for n in shared} == {n: locked[n] for n in shared}


@pytest.mark.parametrize(
  'name', ['requirements.lock', *(f'requirements-{v}.lock' for v in _VARIANTS)]
)
def test_lock_files_hold_pins_and_hashes_alone(name):
  for line in _read(name).splitlines():
    assert re.fullmatch(
      r'#.*|[\w.-]+==[\w.]+ \\| {4}--hash=sha256:[0-9a-f]{64}( \\)?', line
    )
