"""The two Reverb tables: a bounded queue of new unrolls, and uniform replay."""

import reverb
import tensorflow as tf

from bmg import errors
from bmg.agents import types
from bmg.configs import schema

ONLINE = 'online'
REPLAY = 'replay'


def uses_replay(config: schema.Config) -> bool:
  """Whether any batch is drawn from replay; if not, there is no such table."""
  return config.replay.replay_batch > 0 or config.meta.num_bootstrap_batches > 0


def table_names(config: schema.Config) -> tuple[str, ...]:
  """The tables that every unroll goes into, in the order of insertion."""
  return (ONLINE, REPLAY) if uses_replay(config) else (ONLINE,)


def server_name(table: str, token: str) -> str:
  """Returns what the servers of a run call `table`.

  The run's token is a part of it, so that a process that comes to a server of
  another run, whose port may have been its own run's before, finds no table
  there.

  Args:
    table: `ONLINE` or `REPLAY`.
    token: of the run; '' for none.
  """
  return f'{table}-{token}' if token else table


def unroll_spec(config: schema.Config, num_actions: int) -> types.Unroll:
  """Returns the shapes and dtypes of one unroll of this run, as zeros."""
  return types.unroll_spec(
    config.actors.unroll_length,
    config.env.frame_stack,
    config.env.frame_shape,
    num_actions,
  )


def check_unroll(unroll: types.Unroll, spec: types.Unroll) -> None:
  """Raises `FatalError` if shapes or dtypes of one unroll differ from `spec`.

  Reverb does not check them: a writer with another configuration would be
  found out only when a batch cannot be stacked.
  """
  for name, field, expected in zip(spec._fields, unroll, spec, strict=True):
    if field.shape != expected.shape or field.dtype != expected.dtype:
      raise errors.FatalError(
        f'unroll.{name} is {field.dtype}{list(field.shape)}, but this run has '
        f'{expected.dtype}{list(expected.shape)}: was it made under another '
        'configuration?'
      )


def make_tables(
  config: schema.Config, num_actions: int, token: str = ''
) -> list[reverb.Table]:
  """Makes the tables of one server, in the process that serves them.

  `online` is a queue: every unroll is sampled once, in order, and a full queue
  makes writers wait. `replay` is sampled uniformly, evicts its oldest unroll
  when full, and gives nothing before it holds `min_replay_size`; it never makes
  writers wait. Both refer to the same chunks, so that frames are stored once.

  Args:
    config: the run's configuration.
    num_actions: size A of the action set.
    token: of the run, see `server_name`.
  """
  replay = config.replay
  signature = types.Unroll(
    *(
      tf.TensorSpec(field.shape, field.dtype, name)
      for name, field in unroll_spec(config, num_actions)._asdict().items()
    )
  )
  tables = [
    reverb.Table.queue(
      server_name(ONLINE, token),
      max_size=replay.per_server(replay.online_capacity),
      signature=signature,
    )
  ]
  if uses_replay(config):
    tables.append(
      reverb.Table(
        server_name(REPLAY, token),
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=replay.per_server(replay.replay_capacity),
        rate_limiter=reverb.rate_limiters.MinSize(
          replay.per_server(replay.min_replay_size)
        ),
        signature=signature,
      )
    )
  return tables
