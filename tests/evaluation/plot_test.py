import json

import imageio.v3 as imageio
import numpy as np
import pytest

from bmg.evaluation import plot, read, records


def _make_run(folder, mode, gain, meta=True):
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps({'meta': {'mode': mode}}))
  learner = records.RunRecords(str(folder), 'learner', None)
  evaluation = records.RunRecords(str(folder), 'evaluation', None)
  for step in range(5):
    row = {'num_frames': step * 100, 'seconds': step * 2.0}
    row['episode_return'] = gain * step
    if meta:
      row['meta/discount'] = 0.9
    learner.write(row)
    evaluation.write(
      {'num_frames': step * 100, 'seconds': 7.0, 'mean_return': gain * step}
    )
  learner.close()
  evaluation.close()
  return str(folder)


@pytest.fixture
def runs(tmp_path):
  return (
    _make_run(tmp_path / 'a', 'bmg', 1.0),
    _make_run(tmp_path / 'b', 'bmg', 3.0),
    _make_run(tmp_path / 'c', 'none', 2.0, meta=False),
  )


def test_runs_are_grouped_by_label_folder_or_configuration(runs):
  a, b, c = runs
  sizes = lambda groups: {label: len(g) for label, g in groups.items()}
  assert sizes(plot.load_groups([a, b])) == {'a': 1, 'b': 1}
  assert sizes(plot.load_groups([f'x={a},{b}', c])) == {'x': 2, 'c': 1}
  assert sizes(plot.load_groups([a, b, c], by='meta.mode')) == {
    'bmg': 2,
    'none': 1,
  }
  with pytest.raises(read.RecordsError, match=r'meta\.kind'):
    plot.load_groups([a], by='meta.kind')


def test_runs_are_grouped_by_variant(runs, tmp_path):
  a, b, c = runs
  folders = {'a': 'l1', 'b': 'l4'}
  (tmp_path / 'sweep.json').write_text(json.dumps({'folders': folders}))
  groups = plot.load_groups([a, f'x={c}', b], by='variant')
  assert {label: group[0].workdir for label, group in groups.items()} == {
    'l1': a,
    'x': c,
    'l4': b,
  }
  with pytest.raises(read.RecordsError, match=r'c.* no sweep of variants'):
    plot.load_groups([c], by='variant')


def test_mean_and_range_cover_the_common_part():
  first = (np.array([0.0, 10.0]), np.array([0.0, 10.0]))
  second = (np.array([5.0, 20.0]), np.array([25.0, 40.0]))
  x, mean, lowest, highest = plot.mean_and_range([first, second])
  assert (x[0], x[-1]) == (5.0, 10.0)
  np.testing.assert_allclose(lowest, x)
  np.testing.assert_allclose(highest, x + 20.0)
  np.testing.assert_allclose(mean, x + 10.0)


def test_a_single_curve_is_drawn_as_it_is():
  x, y = np.array([0.0, 1.0, 9.0]), np.array([3.0, 1.0, 2.0])
  for curve in plot.mean_and_range([(x, y)])[1:]:
    np.testing.assert_array_equal(curve, y)


@pytest.mark.parametrize('x', ['num_frames', 'seconds'])
def test_a_picture_is_drawn(runs, tmp_path, capsys, x):
  a, b, c = runs
  out = str(tmp_path / 'curves.png')
  argv = [f'bmg={a},{b}', f'none={c}', f'--out={out}', f'--x={x}', '--meta']
  assert plot.main(argv) == 0
  assert capsys.readouterr().out.strip() == out
  picture = imageio.imread(out)[..., :3].reshape(-1, 3)
  for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
    assert (picture == color).all(axis=1).sum() > 100


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--y=loss/total'], "no run recorded 'loss/total'"),
    (['--out=curves.doc'], 'not supported'),
    (['--out=/nowhere/curves.png'], '/nowhere/curves.png'),
    (['--group=seed'], "no field 'seed'"),
  ],
)
def test_mistakes_end_with_one_line(runs, capsys, arguments, message):
  assert plot.main([runs[0], *arguments]) == 1
  error = capsys.readouterr().err
  assert message in error
  assert len(error.splitlines()) == 1


def test_meta_parameters_that_were_not_recorded_are_missed(runs, capsys):
  assert plot.main([runs[2], '--meta']) == 1
  assert 'meta-parameter' in capsys.readouterr().err
