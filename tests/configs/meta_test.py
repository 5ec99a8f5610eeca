import math

import pytest

from configs import checks, meta, schema


def _parameter(**changes) -> dict:
  values = {
    'learned': True,
    'initial': 0.9,
    'low': 0.0,
    'high': 1.0,
    'fixed': 0.99,
  }
  return values | changes


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
  parameters = _build(leak=_parameter(learned=False))
  assert parameters.learned == (
    'discount',
    'trace_lambda',
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
