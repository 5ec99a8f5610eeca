import pathlib

import pandas as pd
import pytest

from bmg.configs.two_colors import schema
from bmg.experiments.two_colors import merge, report
from bmg.launch import cli
from bmg.launch.run import files

_SMALL = {'num_steps': 40_000, 'num_seeds': 2}


def _study(**fields):
  agents = fields.pop('agents', {'ac_fixed': schema.Agent()})
  return schema.Study(
    **{**_SMALL, **fields},
    env=schema.Environment(switch_interval=10_000),
    agents=agents,
  )


def _run(folder, rewards, **fields):
  """Leaves what a study of seeds with these rewards per step leaves."""
  study = _study(**fields)
  frame = pd.DataFrame(
    {
      'num_steps': (row + 1) * 1_000,
      'seed': seed,
      'reward': reward,
      'entropy_weight': 0.2,
    }
    for row in range(40)
    for seed, reward in enumerate(rewards)
  )
  folder.mkdir()
  files.write_json(files.config(folder), schema.to_dict(study))
  paths = {}
  for name in study.agents:
    paths[name] = folder / f'{name}.csv'
    frame.to_csv(paths[name], index=False)
  report.write(study, paths, str(folder))
  return str(folder)


def _merge(out, *folders):
  return merge.main(
    ['merge', f'--workdirs={",".join(folders)}', f'--out={out}']
  )


def test_seeds_of_two_folders_are_one_study(tmp_path, capsys):
  one = _run(tmp_path / 'one', [0.1, 0.2])
  other = _run(
    tmp_path / 'other',
    [0.3, 0.4],
    seed=2,
    agents={'ac_fixed': schema.Agent(), 'ac_wide': schema.Agent(hidden=(512,))},
  )
  out = tmp_path / 'out'
  assert _merge(out, one, other) == 0
  seeds = pd.read_csv(out / 'seeds.csv')
  fixed = seeds[seeds['agent'] == 'ac_fixed']
  assert fixed['seed'].tolist() == [0, 1, 2, 3]
  assert fixed['return'].tolist() == pytest.approx([0.004, 0.008, 0.012, 0.016])
  summary = pd.read_csv(out / 'report.csv').set_index('agent')
  assert summary['seeds'].to_dict() == {'ac_fixed': 4, 'ac_wide': 2}
  interval = report.interval(fixed['return'].to_numpy())
  row = summary.loc['ac_fixed']
  assert row['return_mean'] == pytest.approx(0.01)
  assert row['return_low'] == pytest.approx(interval.low, rel=1e-5)
  assert (out / 'returns.png').read_bytes().startswith(b'\x89PNG')
  assert 'ac_wide' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    ({'seed': 1}, ['the seeds of ac_fixed', 'seed = 1']),
    ({'seed': 2, 'num_steps': 30_000}, ['num_steps is 40000', '30000']),
    (
      {'seed': 2, 'agents': {'ac_fixed': schema.Agent(discount=0.9)}},
      ['agents.ac_fixed.discount is 0.99', '0.9 in'],
    ),
  ],
)
def test_what_does_not_go_together_is_named(fields, expected, tmp_path):
  one = _run(tmp_path / 'one', [0.1, 0.2], seed=1)
  other = _run(tmp_path / 'other', [0.1, 0.2], **fields)
  with pytest.raises(cli.UsageError) as error:
    _merge(tmp_path / 'out', one, other)
  for text in (*expected, one, other):
    assert text in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_a_report_of_another_study_is_named(tmp_path):
  one = _run(tmp_path / 'one', [0.1, 0.2])
  other = _run(tmp_path / 'other', [0.1, 0.2], seed=2)
  another = _study(seed=2, agents={'ac_wide': schema.Agent()})
  files.write_json(files.config(other), schema.to_dict(another))
  with pytest.raises(cli.UsageError, match='ac_fixed, which is no agent'):
    _merge(tmp_path / 'out', one, other)


def test_a_damaged_configuration_is_named(tmp_path):
  one = _run(tmp_path / 'one', [0.1, 0.2])
  other = _run(tmp_path / 'other', [0.1, 0.2], seed=2)
  path = files.config(other)
  path.write_text(path.read_text()[:-20])
  with pytest.raises(cli.UsageError, match=r'config\.json is damaged: .*line'):
    _merge(tmp_path / 'out', one, other)


def test_folders_without_a_report_are_named(tmp_path):
  one = _run(tmp_path / 'one', [0.1, 0.2])
  with pytest.raises(cli.UsageError, match='two folders or more'):
    _merge(tmp_path / 'out', one)
  with pytest.raises(cli.UsageError, match='holds no study: No such file'):
    _merge(tmp_path / 'out', one, str(tmp_path / 'other'))
  pathlib.Path(one, report.SEEDS_FILE).unlink()
  with pytest.raises(cli.UsageError, match='no report yet'):
    _merge(tmp_path / 'out', one, one)
