"""One training step on 1, 2, 4 simulated devices, on a GPU: the same result."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

# Devices are fixed when JAX starts, so that a process of its own is needed. Its
# arguments are the mode, then the devices of each run: cpu:2, say.
_PROGRAM = """
import json
import sys
import jax
import numpy as np
from bmg.agents import types
from bmg.configs import base, schema
from bmg.learner import training

config = base.get_config()
config.env.protocol = 'small42'
config.agent.torso = 'small'
config.agent.head_hidden = ()
config.agent.auxiliary_heads = 1
config.meta.mode = sys.argv[1]
config.meta.bootstrap_length = 2
config.meta.bootstrap_batch = 4
config.optimizer.learning_rate = 1e-2
config.replay.online_batch = 4
config.replay.replay_batch = 4
config.actors.unroll_length = 3
config = schema.from_config_dict(config)
rng = np.random.default_rng(0)

def unrolls(*shape):
  def random(field):
    values = rng.integers(0, 4, (*shape, *field.shape))
    return values.astype(field.dtype)
  spec = types.unroll_spec(3, 4, config.env.frame_shape, 4)
  return jax.tree.map(random, spec)

batches = [training.TrainBatch(unrolls(1, 8), unrolls(1, 4)) for _ in range(3)]
results = []
for platform, num_devices in (each.split(':') for each in sys.argv[2:]):
  devices = jax.devices(platform)[: int(num_devices)]
  step = training.TrainStep(config, 4, devices)
  state = step.init(0)
  for batch in batches:
    placed = step.put(batch)
    assert placed.own.frames.sharding.device_set == set(devices)
    state, metrics = step.step(state, placed)
  flat = np.concatenate(
    [np.ravel(x) for x in jax.tree.leaves((state.params, state.meta.params))])
  results.append({
    'params': flat.tolist(),
    'metrics': {k: float(v) for k, v in metrics.items()},
  })
print(json.dumps(results))
"""


def _run(program, *arguments, **variables):
  flags = os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=4'
  return subprocess.run(
    [sys.executable, '-c', program, *arguments],
    env=os.environ | {'XLA_FLAGS': flags} | variables,
    capture_output=True,
    text=True,
    timeout=280,
    check=False,
  )


def _check_all_equal(result):
  assert result.returncode == 0, result.stderr
  single, *several = json.loads(result.stdout)
  assert several
  for other in several:
    np.testing.assert_allclose(
      other['params'], single['params'], rtol=1e-4, atol=1e-5
    )
    for name, value in single['metrics'].items():
      np.testing.assert_allclose(
        other['metrics'][name], value, rtol=1e-3, atol=1e-6, err_msg=name
      )


@pytest.mark.parametrize(
  ('mode', 'devices'),
  [('none', ('cpu:1', 'cpu:2', 'cpu:4')), ('bmg', ('cpu:1', 'cpu:4'))],
)
def test_result_does_not_depend_on_the_number_of_devices(mode, devices):
  _check_all_equal(_run(_PROGRAM, mode, *devices))


@pytest.mark.skipif(not shutil.which('nvidia-smi'), reason='there is no GPU')
@pytest.mark.parametrize('mode', ['none', 'mg', 'bmg'])
def test_a_gpu_gives_the_result_of_a_cpu(mode):
  # In full precision: by default a GPU rounds the factors of products.
  variables = {
    'JAX_PLATFORMS': 'cuda,cpu',
    'JAX_DEFAULT_MATMUL_PRECISION': 'highest',
  }
  _check_all_equal(_run(_PROGRAM, mode, 'cpu:1', 'gpu:1', **variables))


def test_a_batch_that_cannot_be_divided_is_refused():
  program = _PROGRAM.replace('replay_batch = 4', 'replay_batch = 3')
  result = _run(program, 'none', 'cpu:2')
  assert result.returncode != 0
  assert 'must be divisible by the 2 devices' in result.stderr
