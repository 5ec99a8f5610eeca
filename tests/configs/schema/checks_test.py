"""The constraints that a field's type carries are checked, each by its name."""

import dataclasses
from typing import Annotated

import pytest

from bmg.configs.schema import checks


@dataclasses.dataclass(frozen=True)
class _Section:
  count: checks.Count = 1
  natural: checks.Natural = 0
  weight: checks.NonNegative = 0.0
  period: checks.Positive = 1.0
  decay: checks.Fraction = 0.0
  name: Annotated[str, checks.one_of('sgd', 'adam')] = 'sgd'
  names: Annotated[tuple[str, ...], checks.one_of('sgd', 'adam')] = ()
  anything: int = -1


def test_what_satisfies_all_constraints_passes():
  checks.check_fields('a.section', _Section(names=('adam', 'sgd')))


_CHOICES = "is not a known choice; allowed: sgd, adam. Did you mean 'adam'?"


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('count', 0, 'count = 0: must be at least 1'),
    ('natural', -1, 'natural = -1: must be at least 0'),
    ('weight', -0.5, 'weight = -0.5: must be at least 0'),
    ('period', 0.0, 'period = 0.0: must be positive'),
    ('decay', 1.0, 'decay = 1.0: must lie in [0, 1)'),
    ('name', 'adm', f"name = 'adm': {_CHOICES}"),
    ('names', ('sgd', 'adm'), f"names = 'adm': {_CHOICES}"),
  ],
)
def test_what_does_not_is_named(field, value, message):
  with pytest.raises(checks.ConfigError) as raised:
    checks.check_fields('a.section', _Section(**{field: value}))
  assert str(raised.value) == f'config.a.section.{message}'
