import dataclasses
import json

import pytest

from bmg.configs import base, schema
from bmg.configs.schema import checks


def _error(**values) -> str:
  with pytest.raises(checks.ConfigError) as error:
    schema.from_config_dict(values)
  return str(error.value)


def test_the_defaults_are_consistent_and_those_of_the_base_recipe():
  assert schema.from_config_dict({}) == schema.Config()
  assert schema.from_config_dict(base.get_config()) == schema.Config()


def test_survives_json():
  config = schema.from_config_dict(
    {
      'seed': 3,
      'env': {'game': 'breakout', 'protocol': 'small42', 'height': 50},
      'agent': {'head_hidden': [64]},
      'meta': {'inner_updates': 2, 'context': {'inputs': ['reward', 'value']}},
    }
  )
  saved = json.loads(json.dumps(schema.to_dict(config)))
  assert schema.from_config_dict(saved) == config
  assert config.agent.head_hidden == (64,)
  assert config.meta.context.inputs == ('reward', 'value')


def test_a_protocol_sets_what_is_not_set_by_hand():
  config = base.get_config()
  config.env.protocol = 'common84'
  env = schema.from_config_dict(config).env
  assert (env.height, env.width) == (84, 84)
  assert env.grayscale
  assert env.max_pool
  config.env.height = 100
  env = schema.from_config_dict(config).env
  assert (env.height, env.width) == (100, 84)
  assert env.frame_shape == (100, 84, 1)


def test_every_protocol_sets_the_same_fields():
  fields = [set(values) for values in schema.PROTOCOLS.values()]
  assert all(names == fields[0] for names in fields)


def test_the_configuration_cannot_be_changed():
  config = schema.Config()
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.env.game = 'breakout'


def test_derived_numbers_of_frames():
  config = schema.Config()
  # Appendix C of the paper: T = 20, 4 frames a step, 6 online + 12 replay.
  assert config.frames_per_unroll == 80
  assert config.frames_per_update == 480
  assert config.replay.batch_size == 18
  assert config.total_updates == 416_667
  assert config.meta.num_bootstrap_batches == 0


def test_an_unknown_field_is_named_with_its_nearest():
  message = _error(actors={'num_actor': 4})
  assert 'actors.num_actor = 4' in message
  assert 'not a known field' in message
  assert "'num_actors'" in message


def test_a_trust_region_needs_a_behaviour_policy():
  message = _error(loss={'returns': 'lambda'})
  assert 'config.loss.trust_region = 2.0' in message
  assert "must be 0 with loss.returns='lambda'" in message
  schema.Loss(returns='lambda', trust_region=0.0)


def test_the_number_of_heads():
  assert schema.Agent().num_heads == 3
  assert schema.Agent(auxiliary_heads=0).num_heads == 1


def test_an_unknown_game_is_named_with_its_nearest():
  message = _error(env={'game': 'breakot'})
  assert "env.game = 'breakot'" in message
  assert "'breakout'" in message


def test_an_unknown_protocol_lists_the_known_ones():
  message = _error(env={'protocol': 'papr'})
  assert "env.protocol = 'papr'" in message
  assert 'paper, common84, small42' in message


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    ({'seed': '1'}, 'seed'),
    ({'seed': True}, 'seed'),
    ({'num_frames': 2e8}, 'num_frames'),
    ({'num_frames': 10**13}, 'num_frames'),
    ({'env': {'grayscale': 1}}, 'env.grayscale'),
    ({'agent': {'head_hidden': 256}}, 'agent.head_hidden'),
    ({'agent': {'head_hidden': [2.5]}}, 'agent.head_hidden'),
    ({'optimizer': 'adam'}, 'optimizer'),
    ({'optimizer': {'learning_rate': float('nan')}}, 'optimizer.learning_rate'),
  ],
)
def test_a_wrong_type_is_named(values, expected):
  assert f'config.{expected} = ' in _error(**values)


def test_a_whole_number_will_do_for_a_float():
  config = schema.from_config_dict({'optimizer': {'learning_rate': 1}})
  assert type(config.optimizer.learning_rate) is float


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    ({'seed': -1}, 'seed'),
    ({'num_frames': 479}, 'num_frames'),
    ({'env': {'height': 0}}, 'env.height'),
    ({'env': {'sticky_action_probability': 1.0}}, 'env.sticky_action'),
    ({'env': {'max_episode_frames': 3}}, 'env.max_episode_frames'),
    ({'env': {'reward_clip': -1.0}}, 'env.reward_clip'),
    ({'actors': {'num_actors': 0}}, 'actors.num_actors'),
    ({'actors': {'insert_timeout_s': 0.0}}, 'actors.insert_timeout_s'),
    ({'evaluator': {'num_envs': 9}}, 'evaluator.num_envs'),
    ({'actors': {'env_groups': 0}}, 'actors.env_groups'),
    (
      {'actors': {'env_groups': 3, 'envs_per_actor': 4}},
      'actors.env_groups',
    ),
    ({'replay': {'num_servers': 0}}, 'replay.num_servers'),
    ({'replay': {'online_batch': 0}}, 'replay.online_batch'),
    ({'replay': {'online_capacity': 5}}, 'replay.online_capacity'),
    ({'replay': {'min_replay_size': 10_001}}, 'replay.min_replay_size'),
    ({'agent': {'torso': 'resnet'}}, 'agent.torso'),
    ({'agent': {'head_hidden': [0]}}, 'agent.head_hidden'),
    ({'agent': {'auxiliary_heads': -1}}, 'agent.auxiliary_heads'),
    ({'agent': {'torso_dtype': 'float16'}}, 'agent.torso_dtype'),
    ({'loss': {'returns': 'retrace'}}, 'loss.returns'),
    ({'loss': {'advantage': 'gae'}}, 'loss.advantage'),
    ({'loss': {'trust_region': -1.0}}, 'loss.trust_region'),
    ({'loss': {'rho_bar': 0.5}}, 'loss.rho_bar'),
    ({'optimizer': {'decay': 1.0}}, 'optimizer.decay'),
    ({'meta': {'mode': 'maml'}}, 'meta.mode'),
    ({'meta': {'inner_updates': 0}}, 'meta.inner_updates'),
    ({'meta': {'inner_updates': 5}}, 'replay.online_capacity'),
    (
      {
        'meta': {
          'policy_matching_weight': 0.0,
          'value_matching_weight': 0.0,
        }
      },
      'meta.policy_matching_weight',
    ),
    ({'learner': {'log_period_s': 0.0}}, 'learner.log_period_s'),
    ({'learner': {'keep_checkpoints': 0}}, 'learner.keep_checkpoints'),
    ({'learner': {'num_hosts': 0}}, 'learner.num_hosts'),
    ({'learner': {'num_hosts': 4}}, 'replay.online_batch'),
    ({'launch': {'max_restarts': -1}}, 'launch.max_restarts'),
    ({'actors': {'inference': 'gpu'}}, 'actors.inference'),
    (
      {'actors': {'inference': 'learner'}, 'cluster': {'relays': True}},
      'cluster.relays',
    ),
    (
      {'actors': {'inference': 'learner'}, 'learner': {'num_hosts': 2}},
      'actors.inference',
    ),
  ],
)
def test_a_value_that_does_not_fit_is_named(values, expected):
  assert f'config.{expected}' in _error(**values)


def test_a_meta_learning_rate_for_the_runs_length():
  # 480 frames per update, 4 updates per meta-update: 100 meta-updates.
  meta = {
    'updates_between': 3,
    'learning_rate': 0.5,
    'nominal_travel': 50.0,
  }
  config = schema.from_config_dict({'num_frames': 480 * 400, 'meta': meta})
  assert config.meta_learning_rate == 0.5
  meta['nominal_travel'] = 20.0
  config = schema.from_config_dict({'num_frames': 480 * 400, 'meta': meta})
  assert config.meta_learning_rate == 0.2
  meta['nominal_travel'] = 0.0
  config = schema.from_config_dict({'num_frames': 480 * 400, 'meta': meta})
  assert config.meta_learning_rate == 0.5
