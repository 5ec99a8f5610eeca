"""Arrows between the rooms point down: who may import whom, and no circle.

docs/architecture.md tells the same in words.
"""

import ast
import functools
import pathlib
import sys

import pytest

import bmg

_ROOT = pathlib.Path(bmg.ROOT)

# Each room, or floor of a room, and all that it imports of the house: only what
# stands above it in this table, which is below it in the house.
_ROOMS = {
  'errors': (),
  'engine': (),
  'configs.schema': (),
  'configs': ('configs.schema',),
  'agents': ('engine', 'configs.schema'),
  'replay': ('agents', 'configs.schema', 'errors'),
  'actors': ('agents', 'configs.schema'),
  'evaluation': ('actors', 'agents', 'configs.schema'),
  'learner': ('agents', 'evaluation', 'configs.schema', 'errors'),
  # Command lines, of all that has some.
  'launch.cli': ('agents', 'configs', 'configs.schema', 'errors'),
  'launch.run': ('launch.cli', 'evaluation', 'configs.schema'),
  'launch.kubernetes': ('launch.cli', 'launch.run', 'configs.schema'),
  'launch.program': (
    'launch.kubernetes',
    'launch.run',
    'learner',
    'evaluation',
    'actors',
    'replay',
    'agents',
    'configs.schema',
    'errors',
  ),
  'launch.local': (
    'launch.program',
    'launch.run',
    'launch.cli',
    'configs.schema',
  ),
  'launch.slurm': (
    'launch.local',
    'launch.program',
    'launch.run',
    'launch.cli',
    'configs.schema',
  ),
  # The four of them by name.
  'launch.backends': (
    'launch.slurm',
    'launch.local',
    'launch.kubernetes',
    'launch.run',
    'launch.cli',
  ),
  'launch.sweep': (
    'launch.local',
    'launch.kubernetes',
    'launch.run',
    'launch.cli',
    'evaluation',
    'configs.schema',
  ),
  'launch.commands': (
    'launch.sweep',
    'launch.backends',
    'launch.local',
    'launch.run',
    'launch.cli',
    'learner',
    'evaluation',
    'replay',
    'configs.schema',
  ),
  'experiments': (
    'launch.local',
    'launch.run',
    'launch.cli',
    'learner',
    'evaluation',
    'agents',
    'engine',
    'configs',
    'configs.schema',
    'errors',
  ),
}
# They measure the house, so may use all of it, the studies apart; what they
# import of each other, and of the studies.
_BENCHMARKS = {
  'benchmarks.harness': (),
  'benchmarks.throughput': ('benchmarks.harness',),
  'benchmarks.robustness': ('benchmarks.harness',),
  'benchmarks.step': ('benchmarks.harness',),
  'benchmarks.two_colors': ('benchmarks.harness', 'experiments'),
}
_FLOORS = (*_ROOMS, *_BENCHMARKS)

# Files outside of the one room of a library, and why.
_LIBRARIES = {
  ('launchpad', 'courier'): (
    'launch/program',
    {
      # Runs the whole program in its own process.
      'launch/local/threads.py',
      # Checks that it can be imported and works.
      'launch/commands/health_checks.py',
    },
  ),
  ('reverb',): (
    'replay',
    # Shows why `replay` is as it is.
    {'benchmarks/throughput/reverb_paths.py'},
  ),
}


@functools.cache
def _sources() -> list[pathlib.Path]:
  rooms = {name.partition('.')[0] for name in _FLOORS} - {'errors'}
  return [
    path
    for room in sorted({*rooms, 'bmg'})
    for path in sorted((_ROOT / room).rglob('*.py'))
  ]


def _module(path: pathlib.Path) -> str:
  parts = path.relative_to(_ROOT).with_suffix('').parts
  parts = parts[1:] if parts[0] == 'bmg' else parts
  return '.'.join(part for part in parts if part != '__init__')


_MODULES = {_module(path) for path in _sources()}


@functools.cache
def _imports(path: pathlib.Path) -> set[str]:
  """Full names of the modules that a file imports, wherever in it."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      assert node.module is not None
      for alias in node.names:
        full = f'{node.module}.{alias.name}'
        is_module = full.removeprefix('bmg.') in _MODULES
        names.add(full if is_module else node.module)
  return names


def _house(path: pathlib.Path) -> set[str]:
  """The modules of the house that a file imports, without `bmg` itself."""
  return {
    name.removeprefix('bmg.')
    for name in _imports(path)
    if name.startswith('bmg.')
  }


def _room(module: str) -> str:
  """The room of a module: the longest name in the table that it lies in."""
  parts = module.split('.')
  for length in range(len(parts), 0, -1):
    name = '.'.join(parts[:length])
    if name in _FLOORS:
      return name
  return module


def _arrows(room: str) -> dict[str, list[str]]:
  """The rooms that a room imports, each with the files that do."""
  found: dict[str, list[str]] = {}
  for path in _sources():
    if _room(_module(path)) == room:
      for name in _house(path):
        target = _room(name)
        if target != room:
          found.setdefault(target, []).append(str(path.relative_to(_ROOT)))
  return found


@pytest.mark.parametrize('room', _ROOMS)
def test_a_room_imports_what_it_may(room):
  found = _arrows(room)
  unexpected = {name: found[name] for name in set(found) - set(_ROOMS[room])}
  assert not unexpected
  # What is not used any more is not allowed any more.
  assert set(_ROOMS[room]) <= set(found)


@pytest.mark.parametrize('room', _BENCHMARKS)
def test_benchmarks_share_their_harness_alone(room):
  found = set(_arrows(room))
  assert found & {*_BENCHMARKS, 'experiments'} == set(_BENCHMARKS[room])


def test_arrows_point_down():
  for room, targets in (_ROOMS | _BENCHMARKS).items():
    for target in targets:
      assert _FLOORS.index(target) < _FLOORS.index(room), f'{room} -> {target}'


def test_every_module_lies_in_a_room():
  # The roof: finds the rooms, and hands a command line to one of them.
  roof = {'', '__main__', 'launch', 'benchmarks'}
  assert {_room(name) for name in _MODULES} == {*_FLOORS, *roof}


def test_modules_of_a_room_do_not_import_in_circles():
  graph = {
    _module(path): _house(path)
    for path in _sources()
    if not path.name.startswith('__')
  }
  done: set[str] = set()

  def visit(name, above):
    assert name not in above, ' -> '.join([*above, name])
    if name not in done:
      for each in sorted(graph.get(name, ())):
        visit(each, [*above, name])
      done.add(name)

  for name in sorted(graph):
    visit(name, [])


@pytest.mark.parametrize('names', _LIBRARIES, ids=lambda names: names[0])
def test_a_library_has_one_room(names):
  room, others = _LIBRARIES[names]
  users = {
    str(path.relative_to(_ROOT))
    for path in _sources()
    if {name.partition('.')[0] for name in _imports(path)} & set(names)
  }
  assert {path for path in users if not path.startswith(f'{room}/')} == others


def test_the_engine_needs_jax_and_optax_alone():
  libraries = {
    name.partition('.')[0]
    for path in (_ROOT / 'engine').rglob('*.py')
    for name in _imports(path)
  }
  assert libraries - {'bmg'} - sys.stdlib_module_names == {'jax', 'optax'}


def test_the_house_goes_by_one_name():
  rooms = {name.partition('.')[0] for name in _FLOORS}
  for path in [*_sources(), *(_ROOT / 'tests').rglob('*.py')]:
    flat = {name.partition('.')[0] for name in _imports(path)} & rooms
    assert not flat, f'{path}: imports {flat}'
