import math

import pytest

from bmg.configs import schema
from bmg.configs.schema import checks, meta


def _parameter(**changes) -> dict:
  values = {
    'learned': True,
    'initial': 0.9,
    'low': 0.0,
    'high': 1.0,
    'fixed': 0.99,
  }
  return values | changes


def _error(**values) -> str:
  with pytest.raises(checks.ConfigError) as error:
    schema.from_config_dict({'meta': values})
  return str(error.value)


def _build(**parameters) -> meta.MetaParameters:
  config = schema.from_config_dict({'meta': {'parameters': parameters}})
  return config.meta.parameters


def test_the_paper_starts_at_a_logit_of_4_6_under_each_bound():
  parameters = meta.MetaParameters()
  for name, high in (('discount', 1.0), ('entropy_weight', 0.01)):
    parameter = getattr(parameters, name)
    share = (parameter.initial - parameter.low) / high
    assert math.log(share / (1 - share)) == pytest.approx(4.6)


def test_learned_lists_names_in_order():
  assert meta.MetaParameters().learned == (
    'discount',
    'trace_lambda',
    'leak',
    'policy_weight',
    'entropy_weight',
    'value_weight',
  )
  parameters = _build(
    leak=_parameter(learned=False), cut_leak=_parameter(learned=True)
  )
  assert parameters.learned == (
    'discount',
    'trace_lambda',
    'cut_leak',
    'policy_weight',
    'entropy_weight',
    'value_weight',
  )


@pytest.mark.parametrize(
  ('name', 'changes', 'field'),
  [
    ('discount', {'low': 1.0}, 'discount.low'),
    ('discount', {'initial': 0.0}, 'discount.initial'),
    ('leak', {'initial': 1.0}, 'leak.initial'),
    ('trace_lambda', {'high': 1.5}, 'trace_lambda.high'),
    ('discount', {'fixed': 1.01}, 'discount.fixed'),
    ('cut_leak', {'low': -0.1}, 'cut_leak.low'),
  ],
)
def test_bounds_are_checked(name, changes, field):
  with pytest.raises(checks.ConfigError) as error:
    _build(**{name: _parameter(**changes)})
  assert f'config.meta.parameters.{field} = ' in str(error.value)


def test_weights_may_exceed_one():
  parameters = _build(value_weight=_parameter(high=2.0, fixed=2.0))
  assert parameters.value_weight.fixed == 2.0


def test_a_parameter_is_given_whole():
  with pytest.raises(checks.ConfigError, match='is missing'):
    _build(discount={'learned': False})


def test_meta_learning_needs_something_to_learn():
  fixed = meta.MetaParameters(
    **{
      name: meta.MetaParameter(False, 0.5, 0.0, 1.0, 0.5)
      for name in meta.MetaParameters().learned
    }
  )
  assert fixed.learned == ()
  meta.Meta(mode='none', parameters=fixed)
  with pytest.raises(checks.ConfigError, match='at least one meta-parameter'):
    meta.Meta(mode='mg', parameters=fixed)


@pytest.mark.parametrize(
  ('values', 'field'),
  [
    ({'target': 'groundd'}, 'target'),
    ({'target_data': 'replays'}, 'target_data'),
    ({'target_optimizer': {'name': 'rmspro'}}, 'target_optimizer.name'),
    ({'context': {'inputs': ['td_eror']}}, 'context.inputs'),
    ({'matching': 'kl_valu'}, 'matching'),
  ],
)
def test_an_unknown_choice_is_named_with_its_nearest(values, field):
  message = _error(**values)
  assert f'config.meta.{field} = ' in message
  nearest = {
    'target': 'grounded',
    'target_data': 'replay',
    'target_optimizer.name': 'rmsprop',
    'context.inputs': 'td_error',
    'matching': 'kl_value',
  }[field]
  assert f'Did you mean {nearest!r}?' in message


@pytest.mark.parametrize(
  ('values', 'field'),
  [
    ({'target': 'plain', 'target_data': 'online'}, 'target_data'),
    ({'updates_between': -1}, 'updates_between'),
    ({'bootstrap_length': 0}, 'bootstrap_length'),
    ({'bootstrap_batch': 0}, 'bootstrap_batch'),
    ({'matching_stride': 0}, 'matching_stride'),
    ({'matching_reduction': 'max'}, 'matching_reduction'),
    ({'nominal_travel': -1.0}, 'nominal_travel'),
    ({'outer_kl_weight': -1.0}, 'outer_kl_weight'),
    ({'target_optimizer': {'max_grad_norm': -0.1}}, 'target_optimizer.max'),
    ({'target_optimizer': {'learning_rate': 0}}, 'target_optimizer.learning'),
    ({'target_optimizer': {'epsilon': 0}}, 'target_optimizer.epsilon'),
    ({'target_optimizer': {'beta2': 1}}, 'target_optimizer.beta2'),
    ({'context': {'length': 0}}, 'context.length'),
    ({'context': {'decay': 1.0}}, 'context.decay'),
    ({'context': {'hidden': [32, 0]}}, 'context.hidden'),
    ({'context': {'inputs': 'reward'}}, 'context.inputs'),
  ],
)
def test_a_value_that_does_not_fit_is_named(values, field):
  assert f'config.meta.{field}' in _error(**values)


@pytest.mark.parametrize(
  'name',
  ['maml', 'kl:', ':kl', 'bmg.agents.matching:k l', 'bmg.agents.matching.kl'],
)
def test_what_cannot_name_a_matching_function_lists_those_that_there_are(name):
  message = _error(matching=name)
  assert f'config.meta.matching = {name!r}' in message
  assert "'package.module:function'" in message
  assert 'kl, reverse_kl, symmetric_kl, value, kl_value, l2' in message


def test_a_matching_function_of_ones_own_needs_a_module_that_exists():
  meta.Meta(matching='bmg.agents.matching:kl')
  for name, module in (
    ('no.such.module:f', 'no.such.module'),
    ('learner.no_such:f', 'learner.no_such'),
    ('.matching:f', '.matching'),
  ):
    message = _error(matching=name)
    assert f'config.meta.matching = {name!r}' in message
    assert f'there is no module {module!r}' in message


@pytest.mark.parametrize(
  ('matching', 'policy', 'value', 'wrong'),
  [
    ('kl_value', 0.0, 0.0, 'policy'),
    ('kl_value', 0.0, 0.1, None),
    ('kl_value', 0.1, 0.0, None),
    ('kl', 0.0, 1.0, 'policy'),
    ('reverse_kl', 0.0, 1.0, 'policy'),
    ('symmetric_kl', 0.0, 1.0, 'policy'),
    ('kl', 1.0, 0.0, None),
    ('value', 1.0, 0.0, 'value'),
    ('value', 0.0, 1.0, None),
    ('l2', 0.0, 0.0, None),
    ('bmg.agents.matching:kl', 0.0, 0.0, None),
  ],
)
def test_something_must_be_matched(matching, policy, value, wrong):
  values = {
    'matching': matching,
    'policy_matching_weight': policy,
    'value_matching_weight': value,
  }
  if wrong is None:
    meta.Meta(**values)
  else:
    assert f'config.meta.{wrong}_matching_weight = 0.0' in _error(**values)
  # The others match nothing.
  for mode in ('mg', 'none'):
    meta.Meta(mode=mode, **values)


@pytest.mark.parametrize(
  ('mode', 'target_data', 'updates', 'extra_batches'),
  [
    # K = 2 after 3 that no meta-gradient sees, and L - 1 = 3 to the target.
    ('bmg', 'replay', 3 + 2, 3),
    ('bmg', 'batch', 3 + 2, 0),
    ('bmg', 'online', 3 + 2 + 3, 0),
    ('mg', 'replay', 3 + 2, 0),
    ('mg', 'online', 3 + 2, 0),
    # Nothing is learned; updates are compiled K at a time.
    ('none', 'replay', 2, 0),
    ('none', 'online', 2, 0),
  ],
)
def test_updates_and_data_of_one_meta_update(
  mode, target_data, updates, extra_batches
):
  config = meta.Meta(
    mode=mode,
    target_data=target_data,
    inner_updates=2,
    updates_between=3,
    bootstrap_length=4,
  )
  assert config.updates_per_step == updates
  assert config.num_bootstrap_batches == extra_batches


def test_the_queue_must_hold_the_batches_of_one_meta_update():
  # 4 updates of 6 unrolls each fit into 24.
  online = {'target_data': 'online', 'bootstrap_length': 4}
  schema.from_config_dict({'meta': online})
  for more in (
    {**online, 'bootstrap_length': 5},
    {**online, 'updates_between': 1},
    {'updates_between': 4},
  ):
    message = _error(**more)
    assert 'config.replay.online_capacity = 24' in message
    assert 'the 30 online unrolls' in message
