"""Works out what each link of a run carries, from what was measured of it.

Usage: python -m bmg.benchmarks.throughput.scaling
         --links=docs/results/scaling/common84.json --actor_rate=500
         [--actors=10,100,1000,10000] [--learner_rate=20000]
         [--servers=4] [--actors_per_relay=64] [--relay_period=0.1] [--hosts=2]
         [--network=25]

Prints the tables of docs/scaling.md, which has the formulas.
"""

import bisect
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from bmg.actors import environment
from bmg.agents import types
from bmg.benchmarks.harness import command
from bmg.configs import schema
from bmg.launch import cli

# Of each supervisor, at the heartbeat, the log and the launch; of each node, to
# show a sign of life.
_LOOKS_PER_S = 6.0
_TOUCHES_PER_S = 1.0
# Files that a server has open for each client, as measured (docs/scaling.md).
_FILES_PER_WRITER = 1.0
_FILES_PER_FETCHER = 3.0
# Hard limit of open files where systemd sets it; nodes raise their own to it.
_OPEN_FILES = 524288.0
# Bytes/s from host to device: PCIe 4.0 x16 in practice. Not measured.
_DEVICE_BYTES_PER_S = 20e9
_MB = 1e6
# No number of actors that anyone has.
_MANY = 10**7


class Recipe(NamedTuple):
  """What the configuration and the measurements say."""

  # Emulator frames in one unroll, and unrolls that an actor writes at a time.
  frames_per_unroll: int
  unrolls_per_turn: int
  # Fresh unrolls of one training step, after which parameters are published.
  fresh_per_step: int
  # Unrolls that the learner reads for each fresh one, that one included.
  reads_per_fresh: float
  # Unrolls that the queue has room for; batches that are read ahead.
  queue: int
  prefetch: int
  # Seconds after which a writer that waits asks how the server is.
  patience_s: float
  # Bytes of an unroll on the wire and as an array; of the parameters.
  unroll_bytes: float
  unroll_array_bytes: float
  params_bytes: float
  # CPU seconds: of a replay server for an unroll that is written and read once,
  # and read once more; of the learner to read one; of the learner, and of a
  # relay, to send the parameters.
  server_write_s: float
  server_read_s: float
  reader_s: float
  learner_fetch_s: float
  relay_fetch_s: float
  # Cores of a replay server.
  server_cores: int


class Size(NamedTuple):
  """How large a run is."""

  actors: int
  # Emulator frames/s of an actor that never waits, and of a learner's host that
  # never waits (infinite: as many as come).
  actor_rate: float
  learner_rate: float = math.inf
  servers: int = 1
  # 0: no relays.
  actors_per_relay: int = 0
  # Seconds for which an answer does that a relay has got from the learner.
  relay_period_s: float = 0.1
  hosts: int = 1
  # Times that each batch is as large as the recipe's.
  batches: int = 1
  # Bytes/s, in each direction, of the network card of each machine.
  network: float = 1.25e9

  @property
  def relays(self) -> int:
    """How many relays there are."""
    if not self.actors_per_relay:
      return 0
    return math.ceil(self.actors / self.actors_per_relay)


class Load(NamedTuple):
  """What one link carries, and what it can."""

  link: str
  # Empty for a number of things.
  unit: str
  amount: float
  capacity: float = math.inf

  @property
  def share(self) -> float:
    """Of what it can carry."""
    return self.amount / self.capacity


def loads(recipe: Recipe, size: Size) -> list[Load]:
  """Returns the load of every link, at equilibrium; see docs/scaling.md."""
  frames = min(size.actors * size.actor_rate, size.hosts * size.learner_rate)
  fresh = frames / recipe.frames_per_unroll
  steps = fresh / recipe.fresh_per_step / size.batches
  turns = fresh / recipe.unrolls_per_turn / size.actors
  return [
    *_unroll_loads(recipe, size, fresh),
    *_parameter_loads(recipe, size, steps, turns),
    *_file_loads(size),
    Load(
      'waiting actors ask how replay is',
      '/s',
      _questions(recipe, size, turns) * size.actors,
    ),
    Load('age of fresh unrolls', 'steps', _age(recipe, size)),
  ]


def _unroll_loads(recipe: Recipe, size: Size, fresh: float) -> list[Load]:
  """Of the links that unrolls take, for so many fresh ones per second."""
  read = fresh * recipe.reads_per_fresh
  again = read - fresh
  computing = fresh * recipe.server_write_s + again * recipe.server_read_s
  network = size.network / _MB
  wire = recipe.unroll_bytes / _MB
  return [
    Load('fresh unrolls', '/s', fresh),
    Load('an actor sends', 'MB/s', fresh * wire / size.actors, network),
    Load(
      'a replay server takes in', 'MB/s', fresh * wire / size.servers, network
    ),
    Load('a replay server gives', 'MB/s', read * wire / size.servers, network),
    Load(
      'a replay server computes',
      'cores',
      computing / size.servers,
      recipe.server_cores,
    ),
    Load("a learner's host reads", 'MB/s', read * wire / size.hosts, network),
    Load(
      "a learner's host unpacks",
      'cores',
      read * recipe.reader_s / size.hosts,
      # Python's threads share one.
      1.0,
    ),
    Load(
      'host to device',
      'MB/s',
      read * recipe.unroll_array_bytes / _MB / size.hosts,
      _DEVICE_BYTES_PER_S / _MB,
    ),
  ]


def _parameter_loads(
  recipe: Recipe, size: Size, steps: float, turns: float
) -> list[Load]:
  """Of the links that parameters take.

  Args:
    recipe: what was measured.
    size: of the run.
    steps: training steps per second, each with new parameters.
    turns: of each actor per second, with a question for parameters in each.
  """
  # Parameters that have not changed are not sent.
  per_actor = min(turns, steps)
  asking, asks, relayed = size.actors, per_actor, []
  params = recipe.params_bytes / _MB
  network = size.network / _MB
  if size.actors_per_relay:
    answers = per_actor * min(size.actors_per_relay, size.actors)
    relayed = [
      Load('a relay sends', 'MB/s', answers * params, network),
      Load('a relay answers', 'cores', answers * recipe.relay_fetch_s, 1.0),
    ]
    asking = size.relays
    asks = min(answers, steps, 1 / size.relay_period_s)
  answers = asking * asks
  return [
    Load('an actor fetches', 'MB/s', per_actor * params, network),
    Load('the learner sends parameters', 'MB/s', answers * params, network),
    Load('the learner answers', 'cores', answers * recipe.learner_fetch_s, 1.0),
    *relayed,
    Load(
      "the learner's open files",
      '',
      asking * _FILES_PER_FETCHER,
      _OPEN_FILES,
    ),
  ]


def _file_loads(size: Size) -> list[Load]:
  # The evaluator is one, too.
  nodes = size.actors + size.servers + size.hosts + size.relays + 1
  return [
    Load(
      "a replay server's open files",
      '',
      size.actors / size.servers * _FILES_PER_WRITER,
      _OPEN_FILES,
    ),
    Load('the shared folder is looked at', '/s', nodes * _LOOKS_PER_S),
    Load('the shared folder is written to', '/s', nodes * _TOUCHES_PER_S),
  ]


def _questions(recipe: Recipe, size: Size, turns: float) -> float:
  """Questions of each actor per second, while it waits for room."""
  playing_s = (
    recipe.unrolls_per_turn * recipe.frames_per_unroll / size.actor_rate
  )
  waiting_s = max(0.0, 1 / turns - playing_s)
  return math.floor(waiting_s / recipe.patience_s) * turns


def _age(recipe: Recipe, size: Size) -> float:
  """Steps from the parameters that acted to the one that learns from it."""
  waiting = size.actors * size.actor_rate > size.hosts * size.learner_rate
  step = recipe.fresh_per_step * size.batches
  in_hand = size.actors * recipe.unrolls_per_turn
  # The queue, one batch that the reader holds, one in the making, and others
  # that are ready.
  queued = recipe.queue + (2 + recipe.prefetch) * step if waiting else 0
  return (in_hand + queued) / step


def full_at(recipe: Recipe, size: Size, row: int) -> int | None:
  """Returns the number of actors that fill a link; None if none does.

  Args:
    recipe: what was measured.
    size: of the run, but for the number of actors.
    row: of the link in `loads`.
  """
  # Loads grow with the number of actors.
  found = bisect.bisect(
    range(1, _MANY),
    1.0,
    key=lambda actors: loads(recipe, size._replace(actors=actors))[row].share,
  )
  return None if found == _MANY - 1 else 1 + found


def table(recipe: Recipe, size: Size, actors: Sequence[int]) -> str:
  """Returns the loads for several numbers of actors, as Markdown.

  Where nothing ever fills, the last column is left out.
  """
  columns = [loads(recipe, size._replace(actors=number)) for number in actors]
  lines = [
    ['actors', *(f'{number:,}' for number in actors), 'full at'],
    ['---', *('---:' for _ in range(len(actors) + 1))],
  ]
  for row, first in enumerate(columns[0]):
    filled_by = full_at(recipe, size, row)
    lines.append(
      [
        ', '.join(filter(None, (first.link, first.unit))),
        *(_cell(column[row]) for column in columns),
        '' if filled_by is None else f'{filled_by:,}',
      ]
    )
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(load: Load) -> str:
  """2345.6 of 1,000 -> '**2,346 (235 %)**'."""
  digits = 0 if load.amount >= 100 or not load.unit else 2
  text = f'{load.amount:,.{digits}f}'
  if load.capacity == math.inf:
    return text
  text += f' ({100 * load.share:,.0f} %)'
  return f'**{text}**' if load.share > 1 else text


def read_recipe(saved: Mapping[str, Any]) -> Recipe:
  """Takes what it needs from what benchmarks.throughput.links has saved.

  Raises:
    KeyError: a link was not measured.
  """
  config = schema.from_config_dict(saved['config'])
  meta, replay = config.meta, config.replay
  fresh = meta.updates_per_step * replay.online_batch
  read = meta.updates_per_step * replay.batch_size
  read += meta.num_bootstrap_batches * meta.bootstrap_batch
  arrays = types.unroll_spec(
    config.actors.unroll_length,
    config.env.frame_stack,
    config.env.frame_shape,
    environment.num_actions(config.env),
  )

  def median(link: str, measure: str, role: str) -> float:
    return statistics.median(
      result[measure][role] for result in saved['links'][link].values()
    )

  def cpu_s(link: str, role: str) -> float:
    return median(link, 'cpu_ms_each', role) / 1e3

  return Recipe(
    frames_per_unroll=config.frames_per_unroll,
    unrolls_per_turn=config.actors.envs_per_actor,
    fresh_per_step=fresh,
    reads_per_fresh=read / fresh,
    queue=replay.online_capacity,
    prefetch=config.learner.prefetch,
    patience_s=config.actors.insert_timeout_s,
    unroll_bytes=median('ingest', 'bytes_each', 'taker'),
    unroll_array_bytes=sum(field.nbytes for field in arrays),
    params_bytes=median('parameters', 'bytes_each', 'client'),
    server_write_s=cpu_s('ingest', 'server'),
    server_read_s=cpu_s('feed', 'server'),
    reader_s=cpu_s('feed', 'drawer'),
    learner_fetch_s=cpu_s('parameters', 'server'),
    relay_fetch_s=cpu_s('relay', 'server'),
    server_cores=config.cluster.replay.cpus,
  )


def main(argv: Sequence[str]) -> int:
  """Prints a table; returns the exit status.

  Raises:
    UsageError: the command line cannot be obeyed.
  """
  flag_values = _define_flags()
  cli.parse(flag_values, argv)
  actors = command.whole_numbers(flag_values, 'actors')
  path = command.value(flag_values, 'links')
  try:
    with open(path, encoding='utf-8') as file:
      recipe = read_recipe(json.load(file))
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise cli.UsageError(
      f'--links={path} does not hold all links: {type(error).__name__}: {error}'
    ) from error
  size = Size(
    actors=1,
    actor_rate=command.value(flag_values, 'actor_rate'),
    learner_rate=command.value(flag_values, 'learner_rate'),
    servers=command.value(flag_values, 'servers'),
    actors_per_relay=command.value(flag_values, 'actors_per_relay'),
    relay_period_s=command.value(flag_values, 'relay_period'),
    hosts=command.value(flag_values, 'hosts'),
    batches=command.value(flag_values, 'batches'),
    network=command.value(flag_values, 'network') * 1e9 / 8,
  )
  print(table(recipe, size, actors))
  return 0


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_string(
    'links',
    'benchmarks/results/links.json',
    'What benchmarks.throughput.links has measured.',
    flag_values=flag_values,
  )
  flags.DEFINE_list(
    'actors',
    ['10', '100', '1000', '10000'],
    'Numbers of actors, a column each.',
    flag_values=flag_values,
  )
  for name, default, lowest, text in (
    ('actor_rate', 1000.0, 1e-3, 'Frames/s of an actor that never waits.'),
    ('learner_rate', math.inf, 1e-3, "Frames/s of a learner's host, likewise."),
    ('network', 10.0, 1e-3, 'Gbit/s of the network card of each machine.'),
    ('relay_period', 0.1, 1e-3, 'Seconds: cluster.relay_period_s.'),
  ):
    flags.DEFINE_float(
      name, default, text, lower_bound=lowest, flag_values=flag_values
    )
  for name, default, text in (
    ('servers', 1, 'Replay servers: replay.num_servers.'),
    ('hosts', 1, 'Learner hosts: learner.num_hosts.'),
    ('batches', 1, "Times that batches are as large as the recipe's."),
    ('actors_per_relay', 0, 'Actors per relay of parameters; 0: no relays.'),
  ):
    flags.DEFINE_integer(
      name, default, text, lower_bound=default, flag_values=flag_values
    )
  return flag_values


if __name__ == '__main__':
  cli.run_main(main)
