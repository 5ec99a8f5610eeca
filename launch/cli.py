"""Command lines: flags and recipes, and one clear error for a bad one.

`ml_collections` reads recipes and overrides. What it does not do well is to say
what is wrong with them; that is done here.
"""

import contextlib
import dataclasses
import difflib
import os
import pathlib
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Generic, TypeVar

import ml_collections
from absl import flags
from ml_collections import config_flags

from bmg import configs, errors
from bmg.configs import schema
from bmg.configs.schema import checks, listing

USAGE_STATUS = 2
_SHORT_GROUPS = ('cluster', 'kubernetes', 'slurm')
_OVERRIDE = re.compile(r'--?(?:no)?config\.([^=]+)(?:=(.*))?$', re.DOTALL)
_BAD_VALUE = re.compile(r'flag --config\.([^=]+)=(.*?): ', re.DOTALL)
_HELP_WIDTH = 80
_FIELDS_TITLE = """\
Fields of the configuration, with type and default; a recipe sets some of them,
and each can be overridden on the command line, tuples in quotes:
--config.agent.head_hidden='(64, 64)'. Those marked by ! stay as they are when a
run is resumed. `bmg config` prints the values that a recipe gives them."""
# Stands for every variant of a recipe.
ALL_VARIANTS = 'all'
# Variants are folders of a sweep, and separated by commas on command lines.
_VARIANT = re.compile(r'[a-z0-9][a-z0-9._-]*', re.IGNORECASE | re.ASCII)


class UsageError(Exception):
  """The command line cannot be obeyed; the message says why and what to do."""


T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class RecipeKind(Generic[T]):
  """What a program wants --config to be."""

  # Patterns, in configs/, of the recipes that come with the project.
  patterns: tuple[str, ...]
  # Checks a recipe with its overrides; raises ConfigError.
  build: Callable[[ml_collections.ConfigDict], T]
  # The configuration whose fields --help lists; None: it lists none.
  defaults: T | None = None


TRAINING = RecipeKind(
  ('atari_*.py', 'ablations.py', 'studies/[!_]*.py'),
  schema.from_config_dict,
  schema.Config(),
)


def run_main(main: Callable[[Sequence[str]], int]) -> None:
  """Runs `main` on the command line and ends the process with its status.

  What the user can mend is reported as one line without a traceback.
  """
  try:
    status = main(sys.argv)
  except (UsageError, checks.ConfigError) as error:
    print(f'error: {error}', file=sys.stderr)
    status = USAGE_STATUS
  except errors.FatalError as error:
    print(f'error: {error}', file=sys.stderr)
    status = 1
  except KeyboardInterrupt:
    status = 130
  sys.stdout.flush()
  sys.stderr.flush()
  # With --launcher=threads there are servers whose threads never end.
  os._exit(status)


def parse(
  flag_values: flags.FlagValues,
  argv: Sequence[str],
  more_help: Callable[[], str] = str,
) -> None:
  """Parses `argv` into `flag_values`.

  Args:
    flag_values: gets the values.
    argv: the command line, with the program's name first.
    more_help: returns what to print below the flags where help is asked for.

  Raises:
    UsageError: a flag is unknown, lacks its value or has a bad one.
    SystemExit: the user asked for help, and got it.
  """
  flags.DEFINE_boolean(
    'help', False, 'Show this help.', flag_values=flag_values, short_name='h'
  )
  try:
    rest = flag_values(list(argv))
  except flags.Error as error:
    raise UsageError(str(error)) from error
  if flag_values['help'].value:
    show(flag_values.get_help() + more_help())
    raise SystemExit(0)
  if rest[1:]:
    raise UsageError(
      f'{rest[1]!r} is not a flag; flags are written --name=value'
    )


def show(text: str) -> None:
  """Prints a long text, of which the reader (`| head`) may take a part."""
  try:
    print(text, flush=True)
  except BrokenPipeError:
    # Python flushes it again when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_with_config(
  flag_values: flags.FlagValues, argv: Sequence[str]
) -> schema.Config:
  """Parses `argv` with a recipe for training; see `parse_with_recipe`.

  Of the groups that say where a run goes, fields may be set without `config.`.
  """
  config = parse_with_recipe(flag_values, _expand_groups(argv), TRAINING)
  if ':' in config.meta.matching:
    # Imports JAX, which launchers can else do without.
    from bmg.agents import matching

    matching.get_function(config.meta.matching)
  return config


def parse_with_recipe(
  flag_values: flags.FlagValues, argv: Sequence[str], kind: RecipeKind[T]
) -> T:
  """Parses `argv`, --config and its overrides included.

  Args:
    flag_values: with all other flags defined; gets the values.
    argv: the command line, with the program's name first.
    kind: of the recipe.

  Returns:
    The checked configuration.

  Raises:
    ConfigError: a field is unknown or has a value that does not do.
    UsageError: anything else is wrong with the command line.
  """
  argv = list(argv)
  known = recipes(kind)
  recipe = None
  if _wants_config(argv):
    given, _ = take_flag(argv, 'config')
    if given is None:
      raise UsageError(f'--config is missing; recipes: {", ".join(known)}')
    recipe = _read_recipe(given, known)
  if recipe is not None:
    _check_override_names(recipe, argv)
  config_flags.DEFINE_config_file(
    'config',
    help_string='Recipe, a Python file, or one variant of it, as '
    'recipe.py:variant; --config.<field>=... overrides fields.',
    flag_values=flag_values,
    sys_argv=argv,
  )
  try:
    parse(flag_values, argv, lambda: _describe(kind))
  except UsageError as error:
    bad_value = _BAD_VALUE.match(str(error))
    if bad_value and recipe is not None:
      field, value = bad_value.groups()
      raise checks.ConfigError(
        field, value, f'must be {_expected(recipe, field)}'
      ) from error
    raise
  return kind.build(flag_values['config'].value)


def _describe(kind: RecipeKind[Any]) -> str:
  """Describes what --config may name, and the fields that may be overridden."""
  lines = ['\n', 'Recipes for --config:']
  for recipe in recipes(kind):
    path = recipe_path(recipe)
    module = _run_recipe(path, ())
    summary = (module['__doc__'] or '').partition('\n')[0]
    lines += ['', f'  {recipe}', f'    {summary}']
    names = ', '.join(_variants(path, module))
    if names:
      lines += textwrap.wrap(
        f'Variants: {names}',
        _HELP_WIDTH,
        initial_indent=' ' * 4,
        subsequent_indent=' ' * 6,
      )
  if kind.defaults is not None:
    lines += ['', _FIELDS_TITLE, '', listing.describe_fields(kind.defaults)]
  return '\n'.join(lines)


def _expand_groups(argv: Sequence[str]) -> list[str]:
  """Lets --slurm.partition=... stand for --config.slurm.partition=..."""
  short = re.compile(rf'--?((?:{"|".join(_SHORT_GROUPS)})\..+)', re.DOTALL)
  return [
    f'--config.{match.group(1)}'
    if (match := short.fullmatch(argument))
    else argument
    for argument in argv
  ]


def _wants_config(argv: Sequence[str]) -> bool:
  return not {'--help', '-help', '-h', '--h'} & set(argv)


def take_flag(argv: Sequence[str], name: str) -> tuple[str | None, list[str]]:
  """Takes a flag out of a command line that is not parsed yet.

  Returns:
    Its value, the last one where it is repeated, or None if it has none; and
    the other arguments.
  """
  taken, rest = None, []
  arguments = iter(argv)
  for argument in arguments:
    flag, has_value, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and flag == name:
      taken = value if has_value else next(arguments, None)
    else:
      rest.append(argument)
  return taken, rest


def recipes(kind: RecipeKind[Any] = TRAINING) -> list[str]:
  """The recipes that come with the project."""
  folder = pathlib.Path(configs.__file__).parent
  paths = [path for pattern in kind.patterns for path in folder.glob(pattern)]
  return sorted(str(path.relative_to(folder.parent)) for path in paths)


def recipe_path(recipe: str) -> str:
  """Returns the path of a recipe that comes with the project."""
  return os.path.relpath(pathlib.Path(configs.__file__).parents[1] / recipe)


def variants(path: str) -> tuple[str, ...]:
  """Returns the names of a recipe's variants, in its order; () without any.

  Raises:
    UsageError: the recipe cannot be read.
  """
  return _variants(path, _run_recipe(path, recipes()))


def check_variant(
  given: str, variant: str, recipe: str, known: Collection[str]
) -> None:
  """Checks that a recipe has a variant.

  Args:
    given: the flag that names it.
    variant: its name.
    recipe: path of the recipe.
    known: the names of all variants of it.

  Raises:
    UsageError: it has none of that name.
  """
  if not known:
    raise UsageError(
      f'{given}: {recipe} has no variants: it defines no VARIANTS'
    )
  if variant not in known:
    cure = _suggest(variant, tuple(known))
    raise UsageError(f'{given}: {variant!r} is not a variant{cure}')


def _read_recipe(given: str, known: Sequence[str]) -> ml_collections.ConfigDict:
  """Reads the recipe, or its variant, that --config names."""
  # As `config_flags` takes it apart.
  path, *variant = given.split(':', 1)
  module = _run_recipe(path, known)
  for name in variant:
    check_variant(f'--config={given}', name, path, _variants(path, module))
  get_config = module.get('get_config')
  with _naming_errors(given):
    recipe = get_config and get_config(*variant)
  if not isinstance(recipe, ml_collections.ConfigDict):
    raise UsageError(
      f'--config={given}: is not a recipe, it has no get_config() that returns '
      'a ConfigDict'
    )
  return recipe


def _run_recipe(path: str, known: Sequence[str]) -> dict[str, Any]:
  """Returns what the file defines."""
  if not pathlib.Path(path).is_file():
    message = f'--config={path}: there is no such file; recipes: '
    message += ', '.join(known)
    nearest = difflib.get_close_matches(path, known, n=1)
    if nearest:
      message += f'. Did you mean {nearest[0]!r}?'
    raise UsageError(message)
  with _naming_errors(path):
    return runpy.run_path(path)


@contextlib.contextmanager
def _naming_errors(given: str) -> Iterator[None]:
  """A recipe is Python code of the user's: anything may go wrong in it."""
  try:
    yield
  except (Exception, SystemExit) as error:
    raise UsageError(
      f'--config={given}: cannot be read: {type(error).__name__}: {error}'
    ) from error


def _variants(path: str, module: dict[str, Any]) -> tuple[str, ...]:
  names = module.get('VARIANTS', ())
  if (
    isinstance(names, str)
    or not isinstance(names, Collection)
    or not all(
      isinstance(name, str)
      and _VARIANT.fullmatch(name)
      and name != ALL_VARIANTS
      for name in names
    )
  ):
    raise UsageError(
      f'--config={path}: VARIANTS = {names!r}: must hold names of letters, '
      f"digits, '.', '_' and '-', and not {ALL_VARIANTS!r}"
    )
  return tuple(dict.fromkeys(names))


def _check_override_names(
  recipe: ml_collections.ConfigDict, argv: Sequence[str]
) -> None:
  """Raises `ConfigError` at the first override of a field that is not there."""
  for argument in argv[1:]:
    match = _OVERRIDE.match(argument)
    if match is None:
      continue
    path, value = match.groups()
    group: Any = recipe
    for depth, name in enumerate(path.split('.')):
      if not isinstance(group, ml_collections.ConfigDict):
        parent = '.'.join(path.split('.')[:depth])
        raise checks.ConfigError(
          path, value, f'is not a known field: config.{parent} has none'
        )
      # Iteration shows placeholders, too.
      names = tuple(group.keys())
      if name not in names:
        cure = _suggest(name, names)
        raise checks.ConfigError(path, value, f'is not a known field{cure}')
      group = group.get(name)
    if isinstance(group, ml_collections.ConfigDict):
      raise checks.ConfigError(
        path, value, f'is a group; set one of {", ".join(group.keys())}'
      )


def _suggest(name: str, names: Sequence[str]) -> str:
  cure = f'; known here: {", ".join(names)}'
  nearest = difflib.get_close_matches(name, names, n=1)
  return cure + (f'. Did you mean {nearest[0]!r}?' if nearest else '')


def _expected(recipe: ml_collections.ConfigDict, field: str) -> str:
  """The type of a field in words."""
  group: Any = recipe
  *parents, name = field.split('.')
  for parent in parents:
    group = group[parent]
  names = {
    int: 'a whole number',
    float: 'a number',
    bool: 'true or false',
    tuple: "a tuple like '(64, 64)'",
  }
  return names.get(group.get_type(name), group.get_type(name).__name__)
