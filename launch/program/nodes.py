"""What the nodes of a program do: join the rooms, then run one of their loops.

The imports of each node happen in its own functions: a process imports what its
node needs, and nobody pays for building the program.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import launchpad as lp
import numpy as np
from courier.python import client as courier_client

from bmg.configs import schema
from bmg.launch.run import files, topology

if TYPE_CHECKING:
  from bmg.agents import types

_HEARTBEAT_PERIOD_S = 1.0
_MAX_TIMEOUTS = 3


def make_heartbeat(workdir: str, node: topology.NodeId) -> Callable[[], None]:
  """Returns a function that shows the supervisor a sign of life.

  It costs next to nothing, as it touches the file once a second at most.
  """
  path = files.heartbeat(workdir, node)
  path.parent.mkdir(parents=True, exist_ok=True)
  last = -_HEARTBEAT_PERIOD_S

  def heartbeat() -> None:
    nonlocal last
    now = time.monotonic()
    if now - last >= _HEARTBEAT_PERIOD_S:
      path.touch()
      last = now

  return heartbeat


def incarnation() -> int:
  """How many times this node was started before, in this working directory."""
  return int(os.environ.get('BMG_INCARNATION', '0'))


def connect(address: str, timeout_s: float) -> Any:
  """Returns a Courier client of `address`, for use outside of a program.

  Args:
    address: host:port of a learner or relay.
    timeout_s: deadline of its calls.
  """
  return courier_client.Client(address, call_timeout=timeout_s)


class LearnerClient:
  """The learner, or a relay, over Courier: an `actors.actor.Source`."""

  def __init__(self, connect: Callable[[], Any], workdir: str) -> None:
    """Does not connect yet.

    Args:
      connect: makes a Courier client whose calls have a deadline.
      workdir: the run's folder, which holds its token.
    """
    self._connect = connect
    self._token = files.token(workdir)
    self._client: Any = None
    self._timeouts = 0

  def get_parameters(
    self, unless_version: int
  ) -> 'tuple[int, int, types.Params] | None':
    """Asks for the parameters, unless their version is the one given.

    Returns:
      Version, number of frames and parameters as NumPy; or None.

    Raises:
      TimeoutError: the learner does not answer; it may be starting again.
      RuntimeError: the learner answers with an error.
    """
    return self._call('get_parameters', unless_version)

  def act(
    self, frames: np.ndarray, starts: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, int]:
    """Has the learner choose actions, see `actors.inference`.

    Raises:
      TimeoutError: the learner does not answer; it may be starting again.
      RuntimeError: the learner answers with an error, or is another run's.
    """
    # As bytes: with arrays among the arguments, Courier's calls hang.
    return self._call('act', frames.tobytes(), starts.tobytes())

  def _call(self, method: str, *args: Any) -> Any:
    if self._client is None:
      self._client = self._connect()
    try:
      result = getattr(self._client, method)(self._token, *args)
    except courier_client.StatusNotOk as error:
      raise self._translate(error) from error
    self._timeouts = 0
    return result

  def _translate(self, error: courier_client.StatusNotOk) -> Exception:
    # Courier hands an exception of the server's on as one of these.
    if error.code.name in ('INVALID_ARGUMENT', 'UNKNOWN'):
      return RuntimeError(f'the learner failed to answer: {error}')
    self._timeouts += 1
    if self._timeouts >= _MAX_TIMEOUTS:
      # Where the learner's machine vanished without closing its connections, an
      # old client never recovers and a new one works at once.
      self._client = None
      self._timeouts = 0
    return TimeoutError(f'the learner does not answer: {error}')


class ParameterServer:
  """What Courier serves: parameters, to processes of the same run."""

  def __init__(self, workdir: str, source: Any) -> None:
    """Serves what `source`, a `ParameterSource`, gives."""
    self._token = files.token(workdir)
    self._source = source

  def get_parameters(
    self, token: str, unless_version: int
  ) -> 'tuple[int, int, types.Params] | None':
    """Served to actors, relays and evaluator; see `actors.parameters`.

    Raises:
      PermissionError: the token is that of another run.
    """
    self._check(token)
    return self._source.get_parameters(unless_version)

  def _check(self, token: str) -> None:
    if token != self._token:
      raise PermissionError('this server belongs to another run')


class LearnerNode(ParameterServer):
  """Learns, and serves its parameters until the run stops."""

  def __init__(
    self,
    config: schema.Config,
    workdir: str,
    index: int,
    replay_addresses: Sequence[lp.Address],
    coordinator: lp.Address | None,
  ) -> None:
    from bmg.actors import environment, inference
    from bmg.learner import hosts, learner
    from bmg.replay import reader

    team = hosts.Hosts()
    if coordinator is not None:
      team = hosts.join(config.learner, index, coordinator.resolve())

    num_actions = environment.num_actions(config.env)
    self._config = config
    self._workdir = workdir
    self._index = index
    replay_reader = reader.ReplayReader(
      [address.resolve() for address in replay_addresses],
      config,
      num_actions,
      files.token(workdir),
    )
    self._learner = learner.Learner(
      config, workdir, replay_reader, num_actions, team
    )
    super().__init__(workdir, self._learner)
    self._inference: inference.InferenceServer | None = None
    if config.actors.inference == 'learner':
      self._inference = inference.InferenceServer(
        config, num_actions, incarnation(), self._learner.newest_parameters
      )

  def act(
    self, token: str, frames: bytes, starts: bytes
  ) -> tuple[np.ndarray, np.ndarray, int]:
    """Served to actors, see `actors.inference`.

    Raises:
      PermissionError: the token is that of another run.
      RuntimeError: actors of this run choose their actions themselves.
    """
    self._check(token)
    if self._inference is None:
      raise RuntimeError('actors.inference is not at the learner')
    env = self._config.env
    shape = (self._config.actors.games_per_group, env.frame_stack)
    return self._inference.act(
      np.frombuffer(frames, np.uint8).reshape(*shape, *env.frame_shape),
      np.frombuffer(starts, bool).reshape(shape),
    )

  def run(self) -> None:
    """Learns from all the run's frames, then waits for the stop.

    The evaluator needs the last parameters after the last update, so the
    launcher hears of the end by a file and stops the run in its own time.
    """
    node = topology.NodeId(topology.LEARNER, self._index)
    heartbeat = make_heartbeat(self._workdir, node)
    self._learner.run(lp.stop_event(), heartbeat)


class RelayNode(ParameterServer):
  """Hands parameters on to the actors of one task, until the run stops."""

  def __init__(
    self,
    config: schema.Config,
    workdir: str,
    index: int,
    connect: Callable[[], Any],
  ) -> None:
    from bmg.actors import relay

    self._workdir = workdir
    self._index = index
    source = LearnerClient(connect, workdir)
    super().__init__(
      workdir, relay.ParameterRelay(source, config.cluster.relay_period_s)
    )

  def run(self) -> None:
    """Waits for the stop; threads of the server do the work."""
    node = topology.NodeId(topology.RELAY, self._index)
    heartbeat = make_heartbeat(self._workdir, node)
    while not lp.stop_event().wait(_HEARTBEAT_PERIOD_S):
      heartbeat()


def run_replay(
  config: schema.Config, workdir: str, index: int, address: lp.Address
) -> None:
  """Serves the tables of one Reverb server until the run stops."""
  from bmg.actors import environment
  from bmg.replay import server

  server.run_server(
    config,
    environment.num_actions(config.env),
    workdir,
    index,
    lp.get_port_from_address(address.resolve()),
    files.token(workdir),
    lp.stop_event(),
    make_heartbeat(workdir, topology.NodeId(topology.REPLAY, index)),
  )


def run_actor(
  config: schema.Config,
  workdir: str,
  index: int,
  replay_address: lp.Address,
  connect: Callable[[], Any],
) -> None:
  """Runs one actor until the run stops."""
  from bmg.actors import actor
  from bmg.replay import writer

  replay_writer = writer.ReplayWriter(
    replay_address.resolve(), config, files.token(workdir)
  )
  client = LearnerClient(connect, workdir)
  try:
    actor.run_actor(
      config,
      index,
      incarnation(),
      replay_writer,
      client,
      lp.stop_event(),
      make_heartbeat(workdir, topology.NodeId(topology.ACTOR, index)),
      chooser=client if config.actors.inference == 'learner' else None,
    )
  finally:
    replay_writer.close()


def run_evaluator(
  config: schema.Config, workdir: str, connect: Callable[[], Any]
) -> None:
  """Runs the evaluator until it has judged the last parameters."""
  from bmg.evaluation import evaluator

  evaluator.run_evaluator(
    config,
    workdir,
    incarnation(),
    LearnerClient(connect, workdir),
    lp.stop_event(),
    make_heartbeat(workdir, topology.NodeId(topology.EVALUATOR, 0)),
  )
