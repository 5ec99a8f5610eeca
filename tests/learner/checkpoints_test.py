import json
import math
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from bmg import errors
from bmg.configs import schema
from bmg.learner import checkpoints, training
from tests.learner import fakes

_FINGERPRINT = {'num_actions': 6, 'agent.head_hidden': [256, 256]}
_LEAK = {'initial': 0.99, 'low': 0.0, 'high': 1.0, 'fixed': 1.0}


class State(NamedTuple):
  params: Any
  opt_state: Any
  rng: Any


def _state(seed: int, size: int = 50) -> State:
  rng = np.random.default_rng(seed)
  weights = rng.normal(size=(size, size)).astype(np.float32)
  return State(
    params={'torso/~/conv': {'w': weights, 'b': np.zeros(3, np.float32)}},
    opt_state=((), [np.array(seed, np.int32)], {'nu': weights.T.copy()}),
    rng=np.array([1, seed], np.uint32),
  )


def _open(directory, fingerprint=_FINGERPRINT, **kwargs):
  config = schema.Learner(**kwargs)
  return checkpoints.CheckpointStore(str(directory), config, fingerprint)


def _save(store, step, score=math.nan, **kwargs):
  store.save(step, _state(step, **kwargs), {'num_frames': 10 * step}, score)


def _assert_restores(directory, step):
  store = _open(directory)
  state, counters = store.restore(_state(0))
  assert counters == {'num_frames': 10 * step}
  assert isinstance(state, State)
  jax.tree.map(np.testing.assert_array_equal, state, _state(step))
  jax.tree.map(lambda x, y: x.dtype == y.dtype or 1 / 0, state, _state(step))
  store.close()


def _names(directory):
  return sorted(os.listdir(directory))


def test_restores_what_was_saved_bit_for_bit(tmp_path):
  store = _open(tmp_path)
  _save(store, 7)
  store.close()
  _assert_restores(tmp_path, 7)


def test_an_empty_folder_restores_nothing(tmp_path):
  store = _open(tmp_path)
  assert store.latest is None
  assert store.restore(_state(0)) is None


def test_keeps_the_newest_and_the_best_across_sessions(tmp_path):
  kwargs = {'keep_checkpoints': 2, 'keep_best': 1}
  store = _open(tmp_path, **kwargs)
  _save(store, 1, math.nan)
  _save(store, 2, 5.0)
  _save(store, 3, -1.0)
  store.close()
  store = _open(tmp_path, **kwargs)
  for step, score in ((4, 3.0), (5, 4.0), (6, math.nan)):
    _save(store, step, score)
  assert _names(tmp_path) == ['2', '5', '6']


def test_saving_the_same_update_twice_is_no_error(tmp_path):
  store = _open(tmp_path)
  _save(store, 1)
  _save(store, 1)
  assert store.latest == 1


@pytest.mark.parametrize('damage', ['truncate', 'empty', 'delete', 'flip'])
def test_falls_back_from_a_damaged_checkpoint(tmp_path, damage):
  store = _open(tmp_path)
  _save(store, 1)
  _save(store, 2)
  store.close()
  # The file with the arrays themselves.
  path = max(
    (path for path in (tmp_path / '2').rglob('*') if path.is_file()),
    key=lambda path: path.stat().st_size,
  )
  content = path.read_bytes()
  middle = len(content) // 2
  if damage == 'truncate':
    path.write_bytes(content[:middle])
  elif damage == 'empty':
    path.write_bytes(b'')
  elif damage == 'delete':
    path.unlink()
  else:
    flipped = bytes([content[middle] ^ 0x55])
    path.write_bytes(content[:middle] + flipped + content[middle + 1 :])
  _assert_restores(tmp_path, 1)
  assert _names(tmp_path) == ['1', '2.unreadable']


def test_a_truncated_record_counts_as_damage(tmp_path):
  store = _open(tmp_path)
  _save(store, 1)
  _save(store, 2)
  store.close()
  record = tmp_path / '2' / 'record' / 'metadata'
  record.write_text(record.read_text()[:20])
  _assert_restores(tmp_path, 1)


def test_training_goes_on_saving_after_a_fall_back(tmp_path):
  kwargs = {'keep_checkpoints': 1, 'keep_best': 1}
  store = _open(tmp_path, **kwargs)
  _save(store, 1, score=1.0)
  _save(store, 9, score=0.0)
  (tmp_path / '9' / 'record' / 'metadata').write_text('')
  store.restore(_state(0))
  # A damaged checkpoint that counted as the newest would prevent this one.
  _save(store, 5, score=0.5)
  assert store.latest == 5
  store.close()
  _assert_restores(tmp_path, 5)
  assert _names(tmp_path) == ['1', '5', '9.unreadable']


def test_names_all_checkpoints_when_none_can_be_read(tmp_path):
  store = _open(tmp_path)
  _save(store, 1)
  _save(store, 2)
  for step in ('1', '2'):
    (tmp_path / step / 'record' / 'metadata').write_text('')
  with pytest.raises(errors.FatalError, match=r'none .* can be read: 2, 1'):
    store.restore(_state(0))
  assert _names(tmp_path) == ['1', '2']


def test_refuses_a_checkpoint_of_another_network(tmp_path):
  store = _open(tmp_path)
  _save(store, 1)
  store.close()
  other = {'num_actions': 6, 'agent.head_hidden': [64]}
  with pytest.raises(errors.FatalError) as error:
    _open(tmp_path, other).restore(_state(0))
  assert 'agent.head_hidden = [64]' in str(error.value)
  assert '[256, 256]' in str(error.value)
  assert _names(tmp_path) == ['1']


# As the fingerprint was before it held all fields that are fixed.
_OLD_FINGERPRINT = {
  'env.game': 'pong',
  'num_actions': 6,
  'agent.outer_critic': False,
  'meta.context.inputs': [],
  'meta.parameters.learned': list(schema.MetaParameters().learned),
}


@pytest.mark.parametrize(
  ('changes', 'mentioned'),
  [
    ({'seed': 9}, None),
    ({'agent': {'torso_dtype': 'bfloat16'}}, None),
    ({'agent': {'outer_critic': True}}, 'agent.outer_critic = True'),
    ({'meta': {'context': {'inputs': ['value']}}}, 'meta.context.inputs'),
    (
      {'meta': {'parameters': {'leak': {**_LEAK, 'learned': False}}}},
      'meta.parameters.learned',
    ),
  ],
)
def test_a_checkpoint_of_an_older_revision_says_what_it_knows(
  tmp_path, changes, mentioned
):
  store = _open(tmp_path, _OLD_FINGERPRINT)
  _save(store, 1)
  store.close()
  config = schema.from_config_dict(changes)
  resumed = _open(tmp_path, checkpoints.fingerprint(config, 6))
  if mentioned is None:
    assert resumed.restore(_state(0)) is not None
  else:
    with pytest.raises(errors.FatalError, match=mentioned):
      resumed.restore(_state(0))


def test_the_fingerprint_survives_json_and_tells_runs_apart():
  config = schema.Config()
  first = checkpoints.fingerprint(config, 6)
  assert json.loads(json.dumps(first)) == first
  assert checkpoints.fingerprint(config, 18) != first
  other = schema.Config(agent=schema.Agent(torso='small'))
  assert checkpoints.fingerprint(other, 6) != first


@pytest.mark.parametrize(
  'changes',
  [
    {'env': {'frame_stack': 3}},
    {'agent': {'torso': 'nature'}},
    {'agent': {'head_hidden': (4,)}},
    {'agent': {'auxiliary_heads': 1}},
    {'agent': {'outer_critic': True}},
    {'optimizer': {'name': 'adam'}},
    {'meta': {'mode': 'bmg', 'target_optimizer': {'name': 'adam'}}},
    {'meta': {'context': {'inputs': ('value',)}}},
    {'meta': {'context': {'inputs': ('value',), 'length': 7}}},
    {'meta': {'context': {'inputs': ('value',), 'hidden': (9,)}}},
    {'meta': {'parameters': {'leak': {**_LEAK, 'learned': False}}}},
  ],
)
def test_the_fingerprint_tells_states_of_another_form_apart(changes):
  def form(config):
    step = training.TrainStep(config, fakes.NUM_ACTIONS, jax.devices()[:1])
    state = jax.eval_shape(lambda: step.init(0))
    return jax.tree.map(lambda x: (x.shape, x.dtype), state)

  before = fakes.tiny_config(env={'height': 84, 'width': 84})
  after = fakes.tiny_config(
    **{**changes, 'env': {'height': 84, 'width': 84, **changes.get('env', {})}}
  )
  assert form(before) != form(after)
  assert checkpoints.fingerprint(before, 3) != checkpoints.fingerprint(after, 3)


def test_removes_what_an_interrupted_save_left(tmp_path):
  store = _open(tmp_path)
  _save(store, 1)
  store.close()
  os.makedirs(tmp_path / '2.orbax-checkpoint-tmp' / 'state')
  _open(tmp_path)
  assert _names(tmp_path) == ['1']


def test_loads_parameters_for_evaluation(tmp_path):
  store = _open(tmp_path)
  _save(store, 1, score=9.0)
  _save(store, 2, score=3.0)
  store.close()
  params, counters = checkpoints.load_params(str(tmp_path))
  assert counters == {'num_frames': 20}
  jax.tree.map(np.testing.assert_array_equal, params, _state(2).params)
  _, counters = checkpoints.load_params(str(tmp_path), best=True)
  assert counters == {'num_frames': 10}
  os.makedirs(tmp_path / '3.orbax-checkpoint-tmp')
  (tmp_path / '2' / 'record' / 'metadata').write_text('')
  _, counters = checkpoints.load_params(str(tmp_path))
  assert counters == {'num_frames': 10}
  # A learner may be running: evaluation changes nothing.
  assert _names(tmp_path) == ['1', '2', '3.orbax-checkpoint-tmp']


def test_loading_parameters_from_nowhere_is_an_error(tmp_path):
  with pytest.raises(errors.FatalError, match='no checkpoint folder'):
    checkpoints.load_params(str(tmp_path / 'missing'))
  with pytest.raises(errors.FatalError, match=r'no checkpoint in .* yet'):
    checkpoints.load_params(str(tmp_path))


def _free(directory: pathlib.Path) -> int:
  status = os.statvfs(directory)
  return status.f_bavail * status.f_frsize


def test_a_full_disk_leaves_the_last_checkpoint_whole(small_disk):
  directory = small_disk / 'checkpoints'
  store = _open(directory)
  _save(store, 1)
  ballast = small_disk / 'ballast'
  ballast.write_bytes(b'x' * (_free(small_disk) - 8192))
  free = _free(small_disk)
  for _ in range(3):
    with pytest.raises(checkpoints.SaveError) as error:
      _save(store, 2, size=400)
    assert str(directory) in str(error.value)
    assert 'MB free' in str(error.value)
    assert 'No space left on device' in str(error.value)
    assert store.latest == 1
    # Nothing half-written stays, on a disk that has no room for it.
    assert _names(directory) == ['1']
    assert _free(small_disk) == free
  ballast.unlink()
  _save(store, 2)
  store.close()
  _assert_restores(directory, 2)


def test_parameters_can_be_loaded_by_a_relative_path(tmp_path, monkeypatch):
  store = _open(tmp_path / 'checkpoints')
  _save(store, 3)
  store.close()
  monkeypatch.chdir(tmp_path)
  _, counters = checkpoints.load_params('checkpoints')
  assert counters == {'num_frames': 30}
