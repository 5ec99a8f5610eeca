import pytest

from bmg.evaluation import read
from bmg.evaluation.report import collect
from tests.evaluation.report import fake_runs


def _labels(collection):
  return {
    label: sorted(run.folder for run in collection.runs if run.label == label)
    for label in collection.labels
  }


def test_a_sweep_is_all_runs_below_a_folder(tmp_path):
  a = fake_runs.make(tmp_path / 'sweep' / 'bmg' / 'pong-1')
  b = fake_runs.make(tmp_path / 'sweep' / 'none' / 'pong-1', mode='none')
  sweep = str(tmp_path / 'sweep')
  assert _labels(collect.collect([sweep])) == {'bmg': [a], 'none': [b]}
  assert _labels(collect.collect([f'x={sweep}'])) == {'x': [a, b]}
  assert _labels(collect.collect([f'x={a}', b])) == {'x': [a], 'none': [b]}
  assert _labels(collect.collect([sweep], 'seed')) == {'1': [a, b]}
  assert collect.collect([sweep]).games == ['pong']


def test_runs_in_a_sweep_of_variants_are_labelled_by_variant(tmp_path):
  runs = fake_runs.make_sweep(tmp_path / 'sweep', ('l1', 'l4'))
  other = fake_runs.make(tmp_path / 'other', seed=2)
  sweep = str(tmp_path / 'sweep')
  by_variant = {'l1': [runs['l1']], 'l4': [runs['l4']]}
  assert _labels(collect.collect([sweep])) == by_variant
  assert _labels(collect.collect([sweep], 'variant')) == by_variant
  assert _labels(collect.collect([sweep, other])) == {
    **by_variant,
    'bmg': [other],
  }
  both = sorted(runs.values())
  assert _labels(collect.collect([sweep], 'meta.mode')) == {'bmg': both}
  assert _labels(collect.collect([f'x={sweep}'])) == {'x': both}
  with pytest.raises(read.RecordsError, match='no sweep of variants'):
    collect.collect([other], 'variant')


def test_what_is_no_run_of_atari_is_left_out_of_a_sweep_only(tmp_path):
  run = fake_runs.make(tmp_path / 'sweep' / 'pong')
  other = tmp_path / 'sweep' / 'few_shot'
  other.mkdir()
  (other / 'config.json').write_text('{"seed": 1}')
  found = collect.collect([str(tmp_path / 'sweep')])
  assert [r.folder for r in found.runs] == [run]
  assert any(str(other) in warning for warning in found.warnings)
  with pytest.raises(read.RecordsError, match=r'env\.game'):
    collect.collect([str(other)])


def test_only_columns_that_are_needed_are_kept(tmp_path):
  run = collect.collect([fake_runs.make(tmp_path / 'a')]).runs[0]
  assert 'meta/grad_norm' not in run.learner
  assert collect.meta_columns(run) == ['meta/discount', 'meta/discount_aux1']


def test_travel_is_summed_up_and_not_kept(tmp_path):
  folder = fake_runs.make(
    tmp_path / 'a',
    travels={
      'discount': ([0.0, 0.1, 0.45], [1.0, 0.5, 0.6]),
      'discount_aux1': (0.001, 1e-4),
    },
  )
  run = collect.collect([folder]).runs[0]
  assert run.travels == {
    'discount': collect.Travel(travel=0.45, share=0.6, hardly=False),
    'discount_aux1': collect.Travel(travel=0.001, share=1e-4, hardly=True),
  }
  assert not [c for c in run.learner if c.startswith(('travel/', 'step/'))]
  assert collect.meta_columns(run) == ['meta/discount', 'meta/discount_aux1']


def test_a_run_that_has_just_begun_is_there(tmp_path):
  header = fake_runs.make(tmp_path / 'header', returns=(), evaluations=())
  nothing = fake_runs.make(tmp_path / 'nothing', seed=2, evaluations=())
  (tmp_path / 'nothing' / 'learner.csv').unlink()
  runs = collect.collect([header, nothing]).runs
  assert [run.frames_done for run in runs] == [0, 0]
  assert [run.learner for run in runs] == [None, None]


def test_a_row_in_the_making_does_not_count(tmp_path):
  folder = fake_runs.make(tmp_path / 'a')
  with open(tmp_path / 'a' / 'learner.csv', 'a') as file:
    file.write('1960,5')
  assert collect.collect([folder]).runs[0].frames_done == 1000


def test_configurations_that_differ_are_named(tmp_path):
  a = fake_runs.make(tmp_path / 'a', optimizer={'learning_rate': 1e-4})
  b = fake_runs.make(
    tmp_path / 'b', 'boxing', 2, optimizer={'learning_rate': 2e-4}
  )
  c = fake_runs.make(tmp_path / 'c', mode='none', num_frames=2000)
  (difference,) = collect.collect([a, b, c]).differences
  assert difference.label == 'bmg'
  assert difference.field == 'optimizer.learning_rate'
  assert difference.folders == {'0.0001': [a], '0.0002': [b]}
  assert difference.matters


def test_how_a_run_is_carried_out_may_differ(tmp_path):
  a = fake_runs.make(tmp_path / 'a', actors={'num_actors': 8})
  b = fake_runs.make(tmp_path / 'b', seed=2, actors={'num_actors': 9})
  (difference,) = collect.collect([a, b]).differences
  assert difference.field == 'actors.num_actors'
  assert not difference.matters


def test_a_repeated_seed_is_mentioned(tmp_path):
  a = fake_runs.make(tmp_path / 'a')
  b = fake_runs.make(tmp_path / 'b')
  (warning,) = collect.collect([a, b]).warnings
  assert 'seed 1' in warning
  c = fake_runs.make(tmp_path / 'c', seed=2)
  assert not collect.collect([a, c]).warnings


def test_a_run_given_twice_is_refused(tmp_path):
  folder = fake_runs.make(tmp_path / 'a')
  with pytest.raises(read.RecordsError, match='twice'):
    collect.collect([folder, f'x={tmp_path}'])


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('learner.csv', 'num_frames,episode_return\n1,2\n1,2,3\n', 'damaged'),
    ('learner.csv', 'num_frames,episode_return\n1,2,3\n', 'longer'),
    ('learner.csv', 'num_frames,episode_return\n8,1\n4,1\n', 'goes back'),
    ('learner.csv', 'num_frames,episode_return\n8,x\n', 'no number'),
    ('learner.csv', 'num_frames,episode_return\n,1\n', 'line 2'),
    ('learner.csv', 'episode_return\n1\n', "no column 'num_frames'"),
    ('learner.csv', b'num_frames\n\xff\xfe\n', 'damaged'),
    ('evaluation.csv', 'num_frames,mean_return\n1,2\n1,2,3\n', 'damaged'),
    ('config.json', '{', 'not JSON'),
    ('config.json', '[]', 'damaged'),
    ('provenance.json', '{}', 'damaged'),
  ],
)
def test_damage_is_named(tmp_path, name, content, message):
  folder = fake_runs.make(tmp_path / 'a')
  content = content if isinstance(content, bytes) else content.encode()
  (tmp_path / 'a' / name).write_bytes(content)
  with pytest.raises(read.RecordsError, match=message) as caught:
    collect.collect([folder])
  assert name in str(caught.value)


def test_folders_without_runs_are_named(tmp_path):
  (tmp_path / 'empty').mkdir()
  for folder in ('empty', 'nowhere'):
    with pytest.raises(read.RecordsError, match=folder):
      collect.collect([str(tmp_path / folder)])
  fake_runs.make(tmp_path / 'a')
  (tmp_path / 'a' / 'config.json').unlink()
  with pytest.raises(read.RecordsError, match=r'no config\.json'):
    collect.collect([str(tmp_path / 'a')])
