"""The environment variables of each group: threads, devices, caches.

Processes that all use every core fight, so each group gets its share here and
nowhere else. Standard library only.
"""

import os
from collections.abc import Mapping
from typing import Any

import bmg
from bmg.launch.run import topology

# XLA allocates its buffers anew for every step. These have glibc keep them, in
# large pages, where it would have the kernel clear every small page again.
_KEEP_MEMORY = {
  'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
  'MALLOC_MMAP_THRESHOLD_': str(4 * 2**30),
  'MALLOC_TRIM_THRESHOLD_': str(8 * 2**30),
}


def environment(
  group: str, config: Mapping[str, Any], inherited: Mapping[str, str]
) -> dict[str, str]:
  """Returns the whole environment of a node of `group`.

  Args:
    group: a key of `topology.GROUPS`.
    config: the run's configuration as saved in config.json.
    inherited: the environment of the supervisor. The user's own settings win,
      apart from the devices of nodes that must leave them to the learner.
  """
  # Runs that share a machine are each told their part of it.
  num_cores = int(inherited.get('BMG_CORES') or os.cpu_count() or 1)
  threads = _num_threads(group, config['actors'], num_cores)
  defaults = {
    'PYTHONUNBUFFERED': '1',
    'PYTHONFAULTHANDLER': '1',
    # Importing Reverb imports TensorFlow, which is talkative.
    'TF_CPP_MIN_LOG_LEVEL': '2',
    'GRPC_VERBOSITY': 'ERROR',
    # Every restart of a node would compile the same functions again.
    'JAX_COMPILATION_CACHE_DIR': _cache_dir(inherited),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    # One arena per core and thread makes gRPC servers swell.
    'MALLOC_ARENA_MAX': '4',
    'OMP_NUM_THREADS': str(threads),
    # The size of XLA's thread pool on the CPU.
    'NPROC': str(threads),
  }
  if group == topology.LEARNER:
    defaults |= _KEEP_MEMORY
  result = {**defaults, **inherited}
  if threads == 1:
    # The last of several equal XLA flags counts: the user's own.
    result['XLA_FLAGS'] = (
      '--xla_cpu_multi_thread_eigen=false ' + inherited.get('XLA_FLAGS', '')
    ).strip()
  if group != topology.LEARNER:
    result['JAX_PLATFORMS'] = 'cpu'
    result['CUDA_VISIBLE_DEVICES'] = ''
  return result


def python_path(inherited: Mapping[str, str]) -> str:
  """Returns the PYTHONPATH under which every process finds this source."""
  path = inherited.get('PYTHONPATH')
  return bmg.ROOT + (os.pathsep + path if path else '')


def _num_threads(group: str, actors: Mapping[str, Any], num_cores: int) -> int:
  """Computing threads of one node: the learner gets what actors leave over."""
  if group != topology.LEARNER:
    return 1
  return max(1, num_cores - actors['num_actors'] * actors['env_threads'])


def _cache_dir(inherited: Mapping[str, str]) -> str:
  home = inherited.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return os.path.join(home, 'bmg', 'jax')
