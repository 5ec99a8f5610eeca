"""Every recipe is valid, and the paper's has the paper's numbers."""

import importlib
import math
import pathlib

import pytest

from bmg import configs
from bmg.configs import ablations, schema

_ROOT = pathlib.Path(configs.__file__).parent
# Not for training on Atari; tests/experiments has theirs.
_STUDIES = {'few_shot', 'two_colors'}


def _recipes() -> list[str]:
  """Names of the modules below `configs` that have a `get_config`."""
  return [
    '.'.join(('bmg', *path.relative_to(_ROOT.parent).with_suffix('').parts))
    for path in sorted(_ROOT.rglob('*.py'))
    if '\ndef get_config(' in path.read_text()
    and path.parent.name not in _STUDIES
  ]


def _load(name: str) -> schema.Config:
  return schema.from_config_dict(importlib.import_module(name).get_config())


def test_recipes_are_found():
  expected = {
    'atari_paper',
    'atari_common84',
    'atari_local',
    'atari_nature',
    'base',
  }
  assert {f'bmg.configs.{name}' for name in expected} <= set(_recipes())


@pytest.mark.parametrize('name', _recipes())
def test_a_recipe_is_valid(name):
  _load(name)


def test_the_papers_recipe_is_the_papers():
  # Flennerhag et al. (2022), appendix C.
  config = _load('bmg.configs.atari_paper')
  assert config.num_frames == 200_000_000

  env = config.env
  assert env.frame_shape == (210, 160, 3)
  assert (env.frame_stack, env.action_repeat) == (4, 4)
  assert (env.max_no_ops, env.max_episode_frames) == (30, 108_000)
  assert not env.max_pool
  assert env.sticky_action_probability == 0.0
  assert env.reward_clip == 1.0
  assert env.zero_discount_on_life_loss

  assert config.actors.unroll_length == 20
  assert config.replay.online_batch == 6
  assert config.replay.replay_batch == 12
  assert config.replay.replay_capacity == 10_000

  agent = config.agent
  assert (agent.torso, agent.torso_dtype) == ('impala_paper', 'float32')
  assert agent.head_hidden == (256, 256)
  assert agent.auxiliary_heads == 2
  assert not agent.outer_critic

  loss = config.loss
  assert loss.returns == 'vtrace'
  assert loss.rho_bar == loss.c_bar == 1.0
  assert loss.trust_region == 2.0
  # As in IMPALA and STACX: sums, which the clipping below always shortens.
  assert loss.reduction == 'sum'
  assert not loss.half_value_loss

  optimizer = config.optimizer
  assert (optimizer.name, optimizer.schedule) == ('rmsprop', 'linear')
  assert (optimizer.decay, optimizer.epsilon) == (0.99, 1e-4)
  assert optimizer.learning_rate == 1e-4
  # Because of L > 1; otherwise 0.3.
  assert optimizer.max_grad_norm == 0.2
  assert schema.Config().optimizer.max_grad_norm == 0.3


def test_the_papers_recipe_meta_learns_as_the_paper_does():
  meta = _load('bmg.configs.atari_paper').meta
  assert meta.mode == 'bmg'
  assert (meta.inner_updates, meta.updates_between) == (1, 0)
  assert (meta.bootstrap_length, meta.target) == (4, 'grounded')
  # An online to replay ratio of 6 : 48 in all.
  assert (meta.target_data, meta.num_bootstrap_batches) == ('replay', 3)
  assert 12 + meta.num_bootstrap_batches * meta.bootstrap_batch == 48
  assert meta.target_optimizer.name == 'agent'
  assert (meta.matching, meta.matching_stride) == ('kl_value', 1)
  assert meta.policy_matching_weight == 1.0
  assert meta.value_matching_weight == 0.25
  assert meta.outer_kl_weight == 0.0
  assert meta.learning_rate == 1e-3
  assert (meta.beta1, meta.beta2, meta.epsilon) == (0.9, 0.999, 1e-8)
  assert meta.matching_reduction == 'sum'
  assert meta.differentiate_second_moments
  assert meta.nominal_travel == 0.0
  assert meta.max_grad_norm == 0.3
  assert meta.context.inputs == ()

  parameters = meta.parameters
  for name, high, fixed in (
    ('discount', 1.0, 0.995),
    ('trace_lambda', 1.0, 1.0),
    ('leak', 1.0, 1.0),
    ('policy_weight', 1.0, 1.0),
    ('entropy_weight', 0.01, 0.01),
    ('value_weight', 0.25, 0.25),
  ):
    parameter = getattr(parameters, name)
    assert parameter.learned
    assert (parameter.low, parameter.high) == (0.0, high)
    assert parameter.fixed == fixed
    share = parameter.initial / high
    assert math.log(share / (1 - share)) == pytest.approx(4.6)
  # One leak for weights and trace: 6 meta-parameters for each of 3 heads.
  assert not parameters.cut_leak.learned
  assert len(parameters.learned) == 6


@pytest.mark.parametrize('name', ablations.VARIANTS)
def test_an_ablation_is_a_configuration_of_its_own(name):
  found = [
    schema.from_config_dict(ablations.get_config(each))
    for each in ablations.VARIANTS
  ]
  ours = schema.from_config_dict(ablations.get_config(name))
  assert found.count(ours) == 1


def test_the_papers_recipe_is_the_last_of_its_ablations():
  paper = _load('bmg.configs.atari_paper')
  assert schema.from_config_dict(ablations.get_config('bmg_kl_v_l4')) == paper
