import builtins
import hashlib

import imageio.v3 as imageio
import numpy as np
import pytest

from bmg.configs.few_shot import schema
from bmg.experiments.few_shot import images


def _write(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  imageio.imwrite(path, pixels)


@pytest.fixture
def miniimagenet(tmp_path):
  """Two classes a split; the red of an image says which, green its number."""
  for split_index, split in enumerate(('train', 'val', 'test')):
    for class_index, name in enumerate(('n02', 'n01')):
      for number in range(3):
        pixels = np.zeros((84, 84, 3), np.uint8)
        pixels[..., 0] = 100 * split_index + 10 * class_index
        pixels[..., 1] = number
        _write(tmp_path / split / name / f'{number}.png', pixels)
  return tmp_path


@pytest.fixture
def omniglot(tmp_path):
  """Three alphabets and one, of two characters; a dark top left corner."""
  alphabets = [('images_background', name) for name in 'abc']
  for folder, alphabet in [*alphabets, ('images_evaluation', 'd')]:
    for character in ('character01', 'character02'):
      for number in range(2):
        pixels = np.full((28, 28), 255, np.uint8)
        pixels[:14, :14] = ord(alphabet)
        path = tmp_path / folder / alphabet / character / f'{number}.png'
        _write(path, pixels)
  return tmp_path


def _config(kind, folder, **fields):
  return schema.Data(kind=kind, folder=str(folder), **fields)


def test_digits_are_split_by_digit_and_rotated():
  tables = images.load(schema.Data(kind='digits'))
  assert [len(tables[split].counts) for split in images.SPLITS] == [24, 8, 8]
  # 1,797 images, four times.
  assert sum(len(table.images) for table in tables.values()) == 4 * 1797
  contents = {
    split: {image.tobytes() for image in table.images}
    for split, table in tables.items()
  }
  for a, b in (('train', 'validation'), ('train', 'test')):
    assert not contents[a] & contents[b]
  assert not contents['validation'] & contents['test']
  table = tables['test']
  upright, turned = (
    table.images[start : start + count]
    for start, count in zip(table.starts[:2], table.counts[:2], strict=True)
  )
  assert upright.max() == 255
  np.testing.assert_array_equal(
    turned[0, :, :, 0], np.rot90(upright[0, :, :, 0])
  )


def test_mirror_images_double_the_classes():
  tables = images.load(schema.Data(kind='digits', flips=True))
  assert [len(tables[split].counts) for split in images.SPLITS] == [48, 16, 16]
  table = tables['validation']
  first, mirrored = table.images[0], table.images[table.starts[4]]
  np.testing.assert_array_equal(mirrored, first[:, ::-1])


def test_missing_scikit_learn_is_explained(monkeypatch):
  original = builtins.__import__

  def fail(name, *args, **kwargs):
    if name.startswith('sklearn'):
      raise ImportError(name)
    return original(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', fail)
  with pytest.raises(images.DataError, match='pip install "scikit-learn'):
    images.load(schema.Data(kind='digits'))


def test_miniimagenet_is_read_by_split_and_class(miniimagenet):
  # Of another size, and another kind of file.
  _write(
    miniimagenet / 'val' / 'n01' / '9.JPEG',
    np.full((50, 60, 3), 200, np.uint8),
  )
  (miniimagenet / 'val' / 'n01' / 'notes.txt').write_text('not an image')
  config = _config('miniimagenet', miniimagenet, num_classes=(2, 2, 2))
  tables = images.load(config)
  assert list(tables) == list(images.SPLITS)
  train, validation = tables['train'], tables['validation']
  assert train.images.shape == (6, 84, 84, 3)
  assert train.images.dtype == np.uint8
  # By name: n01 first.
  np.testing.assert_array_equal(train.images[:, 0, 0, 0], [10] * 3 + [0] * 3)
  np.testing.assert_array_equal(train.images[:, 0, 0, 1], [0, 1, 2] * 2)
  np.testing.assert_array_equal(validation.counts, [4, 3])
  np.testing.assert_array_equal(validation.starts, [0, 4])
  assert validation.images[4, 0, 0, 0] == 100
  np.testing.assert_allclose(validation.images[3], 200, atol=3)


def test_omniglot_is_inverted_rotated_and_split_by_alphabet(omniglot):
  config = _config(
    'omniglot', omniglot, num_classes=(6, 2), validation_alphabets=1
  )
  tables = images.load(config)
  assert [len(tables[split].counts) for split in images.SPLITS] == [16, 8, 8]
  table = tables['validation']
  assert table.images.shape == (16, 28, 28, 1)
  dark = 255 - ord('c')
  corners = [table.images[start, [0, 0, 27, 27], [0, 27, 27, 0], 0]
             for start in table.starts[:4]]  # fmt: skip
  # Counter-clockwise from the top left.
  np.testing.assert_array_equal(
    corners,
    [[dark, 0, 0, 0], [0, 0, 0, dark], [0, 0, dark, 0], [0, dark, 0, 0]],
  )


@pytest.mark.parametrize(
  ('damage', 'fields', 'words'),
  [
    (lambda root: None, {'folder': '/nowhere'}, "'/nowhere'.*no such folder"),
    (lambda root: None, {'num_classes': (2, 3, 2)}, 'val must have 3 .*has 2'),
    (lambda root: (root / 'test').rename(root / 'x'), {}, 'no folder .*/test'),
    (
      lambda root: (root / 'val/n01/0.png').write_bytes(b'no image'),
      {},
      r'val/n01/0\.png cannot be read',
    ),
    (lambda root: (root / 'train/n00').mkdir(), {}, 'train/n00 has no images'),
    (lambda root: None, {'sha256': 'abc'}, "sha256 = 'abc': does not match"),
  ],
)
def test_bad_folders_are_refused(miniimagenet, damage, fields, words):
  damage(miniimagenet)
  config = _config(**{'kind': 'miniimagenet', 'folder': miniimagenet} | fields)
  with pytest.raises(images.DataError, match=words):
    images.load(config)


def test_some_alphabets_must_be_left_for_training(omniglot):
  config = _config('omniglot', omniglot, validation_alphabets=3)
  with pytest.raises(images.DataError, match='has 3 alphabets'):
    images.load(config)


def test_checksum_is_of_names_and_contents(tmp_path):
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'c.txt').write_bytes(b'two')
  (tmp_path / 'a.txt').write_bytes(b'one')
  expected = hashlib.sha256()
  for part in (b'a.txt', b'one', b'b/c.txt', b'two'):
    expected.update(len(part).to_bytes(8, 'big') + part)
  assert images.checksum(str(tmp_path)) == expected.hexdigest()
  (tmp_path / '.hidden').write_bytes(b'')
  assert images.checksum(str(tmp_path)) == expected.hexdigest()
  (tmp_path / 'a.txt').rename(tmp_path / 'd.txt')
  assert images.checksum(str(tmp_path)) != expected.hexdigest()


def test_matching_checksum_is_accepted(miniimagenet):
  sha256 = images.checksum(str(miniimagenet))
  config = _config('miniimagenet', miniimagenet, sha256=sha256)
  assert len(images.load(config)) == 3
