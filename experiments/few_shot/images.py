"""Images by class: from folders of the user, or from scikit-learn.

docs/few_shot.md says how the folders are laid out.
"""

import hashlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from bmg import errors
from bmg.configs.few_shot import schema

SPLITS = ('train', 'validation', 'test')
_MINIIMAGENET_FOLDERS = ('train', 'val', 'test')
_MINIIMAGENET_SIZE = 84
_OMNIGLOT_FOLDERS = ('images_background', 'images_evaluation')
_OMNIGLOT_SIZE = 28
_ENDINGS = ('.png', '.jpg', '.jpeg')
_ROTATIONS = (0, 1, 2, 3)
_DIGITS_MAXIMUM = 16


class DataError(errors.FatalError):
  """Images are missing or are not what they should be; says which, and why."""


class ClassTable(NamedTuple):
  """The images of some classes, one class after the other."""

  # uint8 [M, H, W, C].
  images: np.ndarray
  # int32 [num_classes]: the first image, and how many there are.
  starts: np.ndarray
  counts: np.ndarray


def load(config: schema.Data) -> dict[str, ClassTable]:
  """Reads all images.

  Returns:
    The classes of each split.

  Raises:
    DataError: see there.
  """
  if config.kind == 'digits':
    return load_digits(config)
  if config.sha256:
    _check_sha256(config)
  if config.kind == 'omniglot':
    return load_omniglot(config)
  return load_miniimagenet(config)


def load_digits(config: schema.Data) -> dict[str, ClassTable]:
  """Makes classes of scikit-learn's 1,797 digits of 8x8 pixels.

  A class is a digit rotated by a multiple of 90 degrees (and mirrored, where
  `flips`). A digit belongs to one split with all its classes.
  """
  try:
    # Only this data set needs it.
    from sklearn import datasets
  except ImportError as error:
    raise DataError(
      'config.data.kind = digits: needs scikit-learn, which is not installed; '
      'install it with: pip install "scikit-learn<1.8"'
    ) from error
  digits = datasets.load_digits()
  pixels = np.round(digits.images * (255 / _DIGITS_MAXIMUM)).astype(np.uint8)
  held_out = config.validation_digits + config.test_digits
  split_digits = (
    [digit for digit in range(10) if digit not in held_out],
    config.validation_digits,
    config.test_digits,
  )
  tables = {}
  for split, chosen in zip(SPLITS, split_digits, strict=True):
    classes = []
    for digit in chosen:
      originals = pixels[digits.target == digit, :, :, None]
      for image in (originals, originals[:, :, ::-1])[: 1 + config.flips]:
        classes += rotations(image)
    tables[split] = make_table(classes)
  return tables


def load_miniimagenet(config: schema.Data) -> dict[str, ClassTable]:
  """Reads `<folder>/{train,val,test}/<class>/<image>` as 84x84 RGB images."""
  root = check_folder(config)
  tables = {}
  for index, (split, name) in enumerate(
    zip(SPLITS, _MINIIMAGENET_FOLDERS, strict=True)
  ):
    folders = _subfolders(root / name)
    _check_num_classes(config, index, root / name, len(folders), 'classes')
    tables[split] = make_table(
      [_read_class(path, 'RGB', _MINIIMAGENET_SIZE) for path in folders]
    )
  return tables


def load_omniglot(config: schema.Data) -> dict[str, ClassTable]:
  """Reads `<folder>/images_{background,evaluation}/<alphabet>/<character>/`.

  Images are 28x28, strokes are bright, and a class is a character rotated by a
  multiple of 90 degrees, as in MAML. The evaluation images are for meta-test;
  the last alphabets of the background images are for meta-validation.
  """
  root = check_folder(config)
  background, evaluation = (
    [_subfolders(alphabet) for alphabet in _subfolders(root / name)]
    for name in _OMNIGLOT_FOLDERS
  )
  for index, alphabets in enumerate((background, evaluation)):
    path = root / _OMNIGLOT_FOLDERS[index]
    _check_num_classes(
      config, index, path, sum(map(len, alphabets)), 'characters'
    )
  held_out = config.validation_alphabets
  if held_out >= len(background):
    raise DataError(
      f'config.data.validation_alphabets = {held_out}: '
      f'{root / _OMNIGLOT_FOLDERS[0]} has {len(background)} alphabets, and '
      'some must be left for meta-training'
    )
  groups = (background[:-held_out], background[-held_out:], evaluation)
  tables = {}
  for split, alphabets in zip(SPLITS, groups, strict=True):
    classes = []
    for character in (path for alphabet in alphabets for path in alphabet):
      classes += rotations(255 - _read_class(character, 'L', _OMNIGLOT_SIZE))
    tables[split] = make_table(classes)
  return tables


def check_sizes(tables: Mapping[str, ClassTable], config: schema.Task) -> None:
  """Checks that tasks can be drawn.

  Raises:
    DataError: a split has too few classes, or a class too few images.
  """
  num_shots = config.num_support + config.num_query
  for split, table in tables.items():
    if len(table.counts) < config.num_ways:
      raise DataError(
        f'config.task.num_ways = {config.num_ways}: the {split} split has '
        f'only {len(table.counts)} classes'
      )
    if table.counts.min() < num_shots:
      raise DataError(
        f'config.task.num_support + config.task.num_query = {num_shots}: a '
        f'class of the {split} split has only {table.counts.min()} images'
      )


def check_folder(config: schema.Data) -> pathlib.Path:
  """Returns the folder of the images.

  Raises:
    DataError: it is not there.
  """
  root = pathlib.Path(config.folder)
  if not root.is_dir():
    raise DataError(
      f'config.data.folder = {config.folder!r}: there is no such folder; '
      f'docs/few_shot.md says how to lay out {config.kind}'
    )
  return root


def checksum(folder: str) -> str:
  """Returns the SHA-256 of all files in a folder, as hexadecimal digits.

  Of each file, sorted by relative path: the path, its length in front, and the
  contents, their length in front. Hidden files do not count.
  """
  root = pathlib.Path(folder)
  paths = {
    path.relative_to(root).as_posix(): path
    for path in root.rglob('*')
    if path.is_file() and not path.name.startswith('.')
  }
  digest = hashlib.sha256()
  for name in sorted(paths):
    for part in (name.encode(), paths[name].read_bytes()):
      digest.update(len(part).to_bytes(8, 'big') + part)
  return digest.hexdigest()


def rotations(images: np.ndarray) -> list[np.ndarray]:
  """Returns images [N, H, H, C] rotated by 0, 90, 180 and 270 degrees."""
  return [np.rot90(images, turns, axes=(1, 2)) for turns in _ROTATIONS]


def make_table(classes: Sequence[np.ndarray]) -> ClassTable:
  """Puts classes, each uint8 [N, H, W, C], one after the other."""
  counts = np.array([len(images) for images in classes], np.int32)
  starts = np.cumsum(counts, dtype=np.int32) - counts
  return ClassTable(np.concatenate(classes), starts, counts)


def _check_sha256(config: schema.Data) -> None:
  found = checksum(str(check_folder(config)))
  if found != config.sha256:
    raise DataError(
      f'config.data.sha256 = {config.sha256!r}: does not match '
      f'{config.folder}, whose checksum is {found}'
    )


def _subfolders(path: pathlib.Path) -> list[pathlib.Path]:
  if not path.is_dir():
    raise DataError(
      f'config.data.folder: there is no folder {path}; docs/few_shot.md says '
      'what must be there'
    )
  folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
  if not folders:
    raise DataError(f'config.data.folder: {path} has no folders in it')
  return folders


def _check_num_classes(
  config: schema.Data,
  index: int,
  path: pathlib.Path,
  found: int,
  what: str,
) -> None:
  if config.num_classes and config.num_classes[index] != found:
    raise DataError(
      f'config.data.num_classes = {config.num_classes}: {path} must have '
      f'{config.num_classes[index]} {what}, but has {found}'
    )


def _read_class(path: pathlib.Path, mode: str, size: int) -> np.ndarray:
  """Reads all images of a folder; uint8 [N, size, size, C]."""
  paths = sorted(
    entry for entry in path.iterdir() if entry.suffix.lower() in _ENDINGS
  )
  if not paths:
    raise DataError(
      f'config.data.folder: {path} has no images ({", ".join(_ENDINGS)})'
    )
  return np.stack(list(_read_images(paths, mode, size)))


def _read_images(
  paths: Iterable[pathlib.Path], mode: str, size: int
) -> Iterable[np.ndarray]:
  for path in paths:
    # Pillow reports a damaged file as one of several kinds of error.
    try:
      with Image.open(path) as file:
        image = file.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
      raise DataError(
        f'config.data.folder: the image {path} cannot be read: {error}'
      ) from error
    if image.size != (size, size):
      image = image.resize((size, size), Image.Resampling.LANCZOS)
    yield np.asarray(image).reshape(size, size, -1)
