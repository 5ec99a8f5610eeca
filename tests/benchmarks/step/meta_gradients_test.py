import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from bmg.actors import environment
from bmg.benchmarks.step import meta_gradients
from bmg.configs import base, schema
from bmg.launch import cli
from bmg.learner import checkpoints, training

ROOT = pathlib.Path(__file__).resolve().parents[3]


def small_config(**meta):
  recipe = base.get_config()
  recipe.env.update(game='boxing', protocol='small42')
  recipe.agent.update(torso='small', head_hidden=(), auxiliary_heads=1)
  recipe.actors.update(num_actors=1, envs_per_actor=2, unroll_length=5)
  recipe.replay.update(online_batch=2, replay_batch=2)
  recipe.meta.update(bootstrap_batch=2, **meta)
  return schema.from_config_dict(recipe)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run's folder with one checkpoint, and the state in it."""

  config = small_config()
  workdir = tmp_path_factory.mktemp('run')
  num_actions = environment.num_actions(config.env)
  step = training.TrainStep(config, num_actions, jax.devices()[:1])
  state = jax.device_get(step.init(config.seed))
  store = checkpoints.CheckpointStore(
    str(workdir / 'checkpoints'),
    config.learner,
    checkpoints.fingerprint(config, num_actions),
  )
  store.save(7, state, {'num_frames': 280, 'num_updates': 7}, 0.0)
  store.close()
  (workdir / 'config.json').write_text(json.dumps(schema.to_dict(config)))
  return workdir


def test_the_drift_of_steady_fickle_and_tiny_gradients():
  config = small_config(max_grad_norm=1e6)
  steady = np.ones(200)
  fickle = np.where(np.arange(200) % 2, 1.0, -1.0)
  tiny = np.full(200, 1e-6)
  gradients = np.stack([steady, fickle, tiny], axis=1).astype(np.float32)
  drift = meta_gradients.drift(config, gradients, epsilon=1e-4)
  np.testing.assert_allclose(drift, [-1.0, 0.0, -0.01], atol=0.02)
  drift = meta_gradients.drift(config, gradients, epsilon=1e-12)
  np.testing.assert_allclose(drift, [-1.0, 0.0, -1.0], atol=0.02)


def test_a_signal_is_the_mean_in_standard_deviations():
  config = small_config()
  names = meta_gradients.logit_names(config)
  assert names[:2] == ['discount', 'discount_aux1']
  gradients = np.zeros((4, len(names)), np.float32)
  gradients[:, 1] = [1.0, 3.0, 1.0, 3.0]
  found = meta_gradients.signals(config, gradients)
  assert found['discount_aux1'].ratio == 2.0
  assert found['discount'].ratio == 0.0


def test_cosines_of_successive_gradients():
  gradients = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
  np.testing.assert_allclose(
    meta_gradients.cosines(gradients), [1.0, 0.0, -1.0]
  )


def test_fresh_unrolls_come_in_their_order_and_replayed_ones_from_all():
  config = small_config(target_data='online', bootstrap_length=2)
  spec = meta_gradients.play(config, *_initial(config), num_turns=10)
  unrolls = [
    unroll._replace(params_version=np.array(index))
    for index, unroll in enumerate(spec)
  ]
  assert len(unrolls) == 20
  batches = meta_gradients.Batches(config, unrolls, seed=0)
  # Two updates in a step, of two fresh unrolls and two replayed ones.
  drawn = [batches.draw().own.params_version for _ in range(6)]
  assert [x.shape for x in drawn] == [(2, 4)] * 6
  fresh = np.concatenate([x[:, :2].ravel() for x in drawn])
  np.testing.assert_array_equal(fresh, np.arange(24) % 20)
  replayed = np.concatenate([x[:, 2:].ravel() for x in drawn])
  assert len(set(replayed.tolist())) > 8


def _initial(config):

  num_actions = environment.num_actions(config.env)
  step = training.TrainStep(config, num_actions, jax.devices()[:1])
  return (jax.device_get(step.init(config.seed)).params,)


def test_the_state_stays_as_it_is(run):
  config = small_config()
  num_actions = environment.num_actions(config.env)
  step = meta_gradients.Step(config, num_actions)
  state, _ = checkpoints.load_state(str(run / 'checkpoints'), 7, step.state)
  unrolls = meta_gradients.play(config, state.params, num_turns=4)
  first, second = (
    meta_gradients.Batches(config, unrolls, seed=0).draw() for _ in range(2)
  )
  gradient, _ = step.run(state, first)
  again, _ = step.run(state, second)
  np.testing.assert_array_equal(gradient, again)
  assert gradient.shape == (12,)
  assert np.abs(gradient).max() > 0.0


def test_every_variant_is_a_configuration():
  config = small_config()
  for fields in meta_gradients.VARIANTS.values():
    meta_gradients.configure(config, fields)
  larger = meta_gradients.configure(
    config, meta_gradients.VARIANTS['bmg-batch-x4']
  )
  assert larger.replay.batch_size == 16


def test_the_command(run, tmp_path):
  output = tmp_path / 'out.json'
  done = _command(
    run,
    '--variants=run,mg-K1,bmg-online-L4',
    '--batches=3',
    f'--out={output}',
  )
  assert done.returncode == 0, done.stderr
  found = {
    each['variant']: each
    for each in json.loads(output.read_text())['measurements']
  }
  assert list(found) == ['run', 'mg-K1', 'bmg-online-L4']
  for each in found.values():
    assert each['num_frames'] == 280
    assert each['cost'] > 0.0
    assert len(each['signals']) == 12
    assert each['variant'] in done.stdout
  assert found['run']['norm'] != found['mg-K1']['norm']


@pytest.mark.parametrize(
  ('flags', 'expected'),
  [
    (['--updates=8'], '--updates: there is no checkpoint of update 8'),
    (['--variants=mgg'], "--variants: 'mgg' is not a variant"),
    (['--workdir=nowhere'], '--workdir=nowhere: is not the folder of a run'),
  ],
)
def test_a_bad_flag_is_named(run, flags, expected):
  arguments = ['meta_gradients', f'--workdir={run}', *flags]
  with pytest.raises(cli.UsageError, match=expected):
    meta_gradients.main(arguments)


def _command(run, *flags):
  return subprocess.run(
    [
      sys.executable,
      '-m',
      'bmg.benchmarks.step.meta_gradients',
      f'--workdir={run}',
      *flags,
    ],
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    timeout=280,
  )
