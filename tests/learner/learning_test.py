"""The whole training step learns: Catch, on pictures, in 400 updates."""

import jax
import numpy as np

from bmg.agents import networks, observations, types
from bmg.configs import schema
from bmg.learner import training

_GAMES, _T, _S, _A = 8, 20, 4, 3
_GRID, _CELL = 7, 3
_SIZE = 22


class _Catch:
  """A ball falls on a 7 x 7 grid; a paddle moves left, stays, moves right."""

  def __init__(self, seed):
    self._rng = np.random.default_rng(seed)
    self._restart()

  def _restart(self):
    self._column, self._row = self._rng.integers(_GRID), 0
    self._paddle = _GRID // 2

  def frame(self):
    picture = np.full((_SIZE, _SIZE, 1), 87, np.uint8)
    y, x = self._row * _CELL, self._column * _CELL
    picture[y : y + 2, x : x + 2] = 200
    x = self._paddle * _CELL
    picture[-_CELL:, x : x + _CELL] = 150
    return picture

  def step(self, action):
    self._paddle = np.clip(self._paddle + action - 1, 0, _GRID - 1)
    self._row += 1
    if self._row < _GRID - 1:
      return 0.0, False
    reward = 1.0 if self._column == self._paddle else -1.0
    self._restart()
    return reward, True


def _config():
  parameters = schema.MetaParameters(
    entropy_weight=schema.MetaParameter(True, 0.002, 0.0, 0.01, 0.002),
    value_weight=schema.MetaParameter(True, 0.5, 0.0, 1.0, 0.5),
  )
  return schema.Config(
    env=schema.Environment(height=_SIZE, width=_SIZE, grayscale=True),
    agent=schema.Agent(torso='small', head_hidden=(), auxiliary_heads=0),
    replay=schema.Replay(online_batch=_GAMES, replay_batch=0),
    optimizer=schema.Optimizer(
      name='adam', learning_rate=1e-3, epsilon=1e-5, max_grad_norm=0.5
    ),
    loss=schema.Loss(reduction='mean', half_value_loss=True),
    meta=schema.Meta(mode='bmg', parameters=parameters),
  )


class _Players:
  """Plays all games for T steps at a time, as an actor does."""

  def __init__(self, config):
    network = networks.make_network(config.agent, _A)

    @jax.jit
    def act(params, frames, starts, key):
      stacked = observations.stack_frames(frames, starts, _S)[:, 0]
      logits = network.apply(params, None, stacked).main.logits
      return jax.random.categorical(key, logits), logits

    self._act = act
    self._games = [_Catch(seed) for seed in range(_GAMES)]
    self._key = jax.random.key(0)
    self._last = self._empty()
    self._last.frames[:, -1] = [game.frame() for game in self._games]
    self._last.starts[:, -1] = True
    self.rewards = []

  def _empty(self):
    spec = types.unroll_spec(_T, _S, (_SIZE, _SIZE, 1), _A)
    return jax.tree.map(lambda x: np.zeros((_GAMES, *x.shape), x.dtype), spec)

  def play(self, params):
    unrolls = self._empty()
    unrolls.frames[:, :_S] = self._last.frames[:, _T:]
    unrolls.starts[:, :_S] = self._last.starts[:, _T:]
    for t in range(_T):
      self._key, key = jax.random.split(self._key)
      actions, logits = self._act(
        params,
        unrolls.frames[:, t : t + _S],
        unrolls.starts[:, t : t + _S],
        key,
      )
      unrolls.actions[:, t] = actions
      unrolls.behaviour_logits[:, t] = logits
      for index, game in enumerate(self._games):
        reward, done = game.step(int(unrolls.actions[index, t]))
        unrolls.rewards[index, t] = reward
        unrolls.discounts[index, t] = 1.0 - done
        unrolls.frames[index, _S + t] = game.frame()
        unrolls.starts[index, _S + t] = done
        if done:
          self.rewards.append(reward)
    self._last = unrolls
    return unrolls


def test_learns_to_catch():
  config = _config()
  train_step = training.TrainStep(config, _A, jax.devices()[:1])
  state = train_step.init(seed=0)
  initial = jax.tree.map(np.array, state.meta.params)
  players = _Players(config)
  for _ in range(400):
    own = jax.tree.map(lambda x: x[None], players.play(state.params))
    nothing = jax.tree.map(lambda x: x[:0], own)
    batch = train_step.put(training.TrainBatch(own, nothing))
    state, metrics = train_step.step(state, batch)
    assert bool(metrics['finite'])
  # Random play catches one ball in seven or so: a mean of about -0.7.
  assert np.mean(players.rewards[:100]) < -0.3
  assert np.mean(players.rewards[-200:]) > 0.8
  moved = {name for name in initial if state.meta.params[name] != initial[name]}
  # These data are on-policy, where the leak of V-trace makes no difference.
  assert moved | {'leak'} == set(initial)
