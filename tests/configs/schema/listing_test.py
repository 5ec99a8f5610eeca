"""The schema as text: every field, and what the source says about it."""

import dataclasses

import pytest

from bmg.configs import schema
from bmg.configs.schema import comments, fields, listing

_WIDTH = 80


def test_the_comment_above_a_field_is_one_line():
  assert comments.above_fields(schema.Actors)['env_groups'] == (
    'Groups that the games of an actor are divided into: while the actions of '
    'one are chosen, the others are stepped.'
  )


def test_a_field_without_a_comment_has_none():
  above = comments.above_fields(schema.Actors)
  assert 'num_actors' not in above
  # The one above it is that of the field before.
  assert 'parameter_timeout_s' not in above


@pytest.fixture(scope='module')
def all_fields():
  return listing.describe_fields(schema.Config()).splitlines()


@pytest.mark.parametrize(
  ('field', 'value'),
  fields.flatten(dataclasses.asdict(schema.Config())).items(),
)
def test_each_field_is_listed_with_its_default(all_fields, field, value):
  (line,) = (line for line in all_fields if f'--config.{field}: ' in line)
  default = tuple(value) if isinstance(value, list) else value
  assert line.endswith(f' = {default!r}')


def test_types_and_comments_are_listed(all_fields):
  at = all_fields.index(
    '! --config.agent.head_hidden: tuple[int, ...] = (256, 256)'
  )
  assert all_fields[at - 1] == (
    '  # Hidden layers of each head; () makes the heads linear.'
  )
  assert '[meta.context]' in all_fields


def test_choices_are_listed_where_the_comment_does_not_name_them(all_fields):
  at = all_fields.index("! --config.agent.torso: str = 'impala_paper'")
  assert all_fields[at - 1] == (
    "  # One of: 'impala_paper', 'impala_2018', 'nature', 'small'."
  )
  at = all_fields.index("  --config.loss.advantage: str = 'q'")
  assert all_fields[at - 1] == (
    "  # 'q': r + discount * v_{t+1} - V (IMPALA); 'target': v_t - V (BMG)."
  )


def test_only_what_may_not_change_on_resume_is_marked(all_fields):
  assert '! --config.seed: int = 1' in all_fields
  assert '  --config.num_frames: int = 200000000' in all_fields


def test_lines_are_wrapped(all_fields):
  assert max(map(len, all_fields)) <= _WIDTH


def test_what_differs_is_marked():
  config = schema.from_config_dict({'seed': 7, 'agent': {'head_hidden': [8]}})
  assert listing.count_differences(config, schema.Config()) == 2
  lines = listing.describe_values(config, schema.Config()).splitlines()
  assert [line for line in lines if line.startswith('*')] == [
    '* seed = 7  (default: 1)',
    '* agent.head_hidden = (8,)  (default: (256, 256))',
  ]
  assert '  num_frames = 200000000' in lines
