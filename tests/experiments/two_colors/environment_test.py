import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmg.configs.two_colors import schema
from bmg.experiments.two_colors import environment

_UP, _RIGHT, _DOWN, _LEFT = range(4)


def _state(agent, items, time=0):
  return environment.State(
    jnp.int32(agent), jnp.asarray(items, jnp.int32), jnp.int32(time)
  )


def _play(state, actions, **rules):
  """Returns the states and rewards of a script."""
  rules = schema.Environment(**rules)
  states, rewards = [], []
  for index, action in enumerate(actions):
    state, reward = environment.step(
      rules, state, jnp.int32(action), jax.random.PRNGKey(index)
    )
    states.append(state)
    rewards.append(float(reward))
  return states, rewards


def test_hand_played_script():
  # The agent in the middle, the first item two cells above it, the second two
  # cells to its right.
  states, rewards = _play(_state(12, [2, 14]), [_RIGHT, _RIGHT, _RIGHT, _LEFT])
  assert [int(state.agent) for state in states] == [13, 14, 14, 13]
  # It collects the second, which is the bad one, and then runs into the wall.
  assert rewards[:3] == pytest.approx([-0.04, -1.0, -0.04])
  assert [int(state.items[0]) for state in states] == [2, 2, 2, 2]
  assert int(states[0].items[1]) == 14
  assert int(states[1].items[1]) not in (14, 2)
  assert [int(state.time) for state in states] == [1, 2, 3, 4]


def test_good_item_is_worth_one():
  states, rewards = _play(_state(12, [7, 14]), [_UP])
  assert rewards == [1.0]
  assert int(states[0].items[0]) not in (7, 14)
  assert int(states[0].items[1]) == 14


@pytest.mark.parametrize(
  ('cell', 'action', 'expected'),
  [
    (0, _UP, 0),
    (0, _LEFT, 0),
    (0, _RIGHT, 1),
    (0, _DOWN, 5),
    (24, _DOWN, 24),
    (24, _RIGHT, 24),
    (24, _LEFT, 23),
    (24, _UP, 19),
    (9, _RIGHT, 9),
    (10, _LEFT, 10),
  ],
)
def test_walls_stop_the_agent(cell, action, expected):
  states, rewards = _play(_state(cell, [12, 13]), [action])
  assert int(states[0].agent) == expected
  assert rewards == [pytest.approx(-0.04)]


@pytest.mark.parametrize(
  ('time', 'first', 'second'),
  [(0, 1.0, -1.0), (9, 1.0, -1.0), (10, -1.0, 1.0), (20, 1.0, -1.0)],
)
def test_good_item_changes_with_time(time, first, second):
  state = _state(12, [7, 11], time)
  assert _play(state, [_UP], switch_interval=10)[1] == [first]
  assert _play(state, [_LEFT], switch_interval=10)[1] == [second]


def test_respawn_is_uniform_over_free_cells():
  keys = jax.random.split(jax.random.PRNGKey(0), 23_000)
  rules = schema.Environment()
  step = jax.vmap(
    lambda key: environment.step(rules, _state(12, [7, 3]), jnp.int32(0), key)
  )
  cells = np.asarray(step(keys)[0].items[:, 0])
  counts = np.bincount(cells, minlength=25)
  # Neither on the agent nor on the other item.
  assert counts[7] == counts[3] == 0
  free = np.delete(counts, [3, 7])
  # Four standard deviations of 23,000 draws from 23 cells.
  assert np.abs(free - 1000).max() < 4 * np.sqrt(1000)


def test_all_respawn_without_overlap():
  keys = jax.random.split(jax.random.PRNGKey(0), 5_000)
  rules = schema.Environment(respawn='all')
  states, _ = jax.vmap(
    lambda key: environment.step(rules, _state(12, [7, 3]), jnp.int32(0), key)
  )(keys)
  cells = np.column_stack([states.agent, states.items])
  assert all(len(set(row)) == 3 for row in cells.tolist())
  for column in cells.T:
    assert set(column) == set(range(25))


def test_observation_is_one_hot_columns_and_rows():
  observation = np.asarray(environment.observe(_state(7, [20, 4])))
  expected = np.zeros((3, 2, 5))
  for index, (column, row) in enumerate([(2, 1), (0, 4), (4, 0)]):
    expected[index, 0, column] = expected[index, 1, row] = 1
  np.testing.assert_array_equal(observation, expected.reshape(30))


def _mean_reward(policy, num_steps):
  """Averages the reward of `policy(state, key) -> action`, without switches."""
  rules = schema.Environment(switch_interval=10**9)

  def body(state, key):
    action_key, key = jax.random.split(key)
    return environment.step(rules, state, policy(state, action_key), key)

  def run(key):
    reset_key, key = jax.random.split(key)
    keys = jax.random.split(key, num_steps)
    return jax.lax.scan(body, environment.reset(reset_key), keys)[1].mean()

  keys = jax.random.split(jax.random.PRNGKey(0), 64)
  return float(jax.jit(jax.vmap(run))(keys).mean())


def test_average_reward_of_a_random_policy():
  mean = _mean_reward(
    lambda state, key: jax.random.randint(key, (), 0, 4), 4000
  )
  assert mean == pytest.approx(-0.038, abs=0.002)


def _distances(good, bad):
  """Steps to the good item by the shortest path around the bad one, [25]."""
  distances = np.full(25, np.inf)
  distances[good] = 0.0
  for _ in range(25):
    for cell in set(range(25)) - {good, bad}:
      distances[cell] = 1 + min(distances[_neighbours(cell)])
  return distances


def _neighbours(cell):
  row, column = divmod(cell, 5)
  moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
  places = np.clip([(row + i, column + j) for i, j in moves], 0, 4)
  return places @ [5, 1]


def test_average_reward_of_the_best_policy():
  actions = np.zeros((25, 25, 25), np.int32)
  expected = []
  for bad in range(25):
    lengths = []
    for good in set(range(25)) - {bad}:
      distances = _distances(good, bad)
      for cell in set(range(25)) - {good, bad}:
        best = np.argmin(distances[_neighbours(cell)])
        actions[cell, good, bad] = best
        lengths.append(distances[cell])
    # A walk of length d is worth 1 - 0.04 (d - 1); while nobody collects the
    # bad item, walks begin and end anywhere else.
    expected.append(1.04 / np.mean(lengths) - 0.04)
  table = jnp.asarray(actions)
  mean = _mean_reward(
    lambda state, key: table[state.agent, state.items[0], state.items[1]], 4000
  )
  assert mean == pytest.approx(np.mean(expected), abs=0.003)
  assert mean == pytest.approx(0.27, abs=0.01)
