import pytest

from bmg.configs import schema
from bmg.launch.local import environment as environment_lib
from bmg.launch.run import topology
from tests.launch import processes


def _environment(group, inherited=None, **actors):
  config = schema.to_dict(processes.small_config())
  config['actors'].update(actors)
  return environment_lib.environment(group, config, inherited or {})


@pytest.mark.parametrize(
  'group', [topology.REPLAY, topology.ACTOR, topology.EVALUATOR]
)
def test_accelerators_are_left_to_the_learner(group):
  inherited = {'JAX_PLATFORMS': 'cuda', 'CUDA_VISIBLE_DEVICES': '0,1'}
  environment = _environment(group, inherited)
  assert environment['JAX_PLATFORMS'] == 'cpu'
  assert environment['CUDA_VISIBLE_DEVICES'] == ''
  learner = _environment(topology.LEARNER, inherited)
  assert learner['CUDA_VISIBLE_DEVICES'] == '0,1'
  assert learner['JAX_PLATFORMS'] == 'cuda'


def test_the_learner_computes_on_the_cores_that_actors_leave(monkeypatch):
  monkeypatch.setattr(environment_lib.os, 'cpu_count', lambda: 8)
  learner = _environment(topology.LEARNER, num_actors=2, env_threads=2)
  assert learner['OMP_NUM_THREADS'] == '4'
  assert 'XLA_FLAGS' not in learner
  shared = _environment(topology.LEARNER, {'BMG_CORES': '4'}, num_actors=2)
  assert shared['OMP_NUM_THREADS'] == '2'
  crowded = _environment(topology.LEARNER, num_actors=48)
  assert crowded['OMP_NUM_THREADS'] == '1'
  assert 'multi_thread_eigen=false' in crowded['XLA_FLAGS']


def test_settings_of_the_user_win():
  mine = {'XLA_FLAGS': '--mine', 'JAX_COMPILATION_CACHE_DIR': '/mine'}
  environment = _environment(topology.ACTOR, mine)
  assert environment['JAX_COMPILATION_CACHE_DIR'] == '/mine'
  assert environment['XLA_FLAGS'].endswith(' --mine')


def test_only_the_learner_keeps_its_memory():
  learner = _environment(topology.LEARNER)
  assert int(learner['MALLOC_TRIM_THRESHOLD_']) > 2**30
  for group in (topology.REPLAY, topology.ACTOR, topology.EVALUATOR):
    assert 'MALLOC_TRIM_THRESHOLD_' not in _environment(group)
  mine = _environment(
    topology.LEARNER, {'GLIBC_TUNABLES': 'glibc.malloc.check=3'}
  )
  assert mine['GLIBC_TUNABLES'] == 'glibc.malloc.check=3'
