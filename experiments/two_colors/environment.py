"""The two-colors grid world: Flennerhag et al. (2022), section 5.1.

An agent walks on a 5 x 5 grid that holds two items. One is worth +1, the other
-1, every other step -0.04. A collected item comes up elsewhere; there are no
episodes. Which of the two is the good one changes from time to time, and
nothing says so. Pure functions of one environment; `jax.vmap` makes many.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from bmg.configs.two_colors import schema

SIZE = 5
NUM_CELLS = SIZE * SIZE
NUM_ACTIONS = 4
# The column and the row of the agent and of both items, as one-hot vectors.
OBSERVATION_SIZE = 3 * 2 * SIZE

GOOD_REWARD = 1.0
BAD_REWARD = -1.0
STEP_REWARD = -0.04

# Up, right, down, left.
_COLUMN_MOVES = (0, 1, 0, -1)
_ROW_MOVES = (-1, 0, 1, 0)


class State(NamedTuple):
  """One grid: cells are numbered row by row, 0 to 24; all differ."""

  # int32 [] and int32 [2].
  agent: jax.Array
  items: jax.Array
  # int32 []: steps so far.
  time: jax.Array


def reset(key: jax.Array) -> State:
  """Puts the agent and both items into random cells."""
  agent, *items = _random_cells(key)
  return State(agent, jnp.stack(items), jnp.zeros((), jnp.int32))


def good_item(environment: schema.Environment, time: jax.Array) -> jax.Array:
  """Which item is worth +1 in the step that begins at `time`: 0 or 1."""
  return (time // environment.switch_interval) % 2


def step(
  environment: schema.Environment,
  state: State,
  action: jax.Array,
  key: jax.Array,
) -> tuple[State, jax.Array]:
  """Makes one step.

  Args:
    environment: the rules.
    state: before the step.
    action: int [], 0 to 3: up, right, down, left. A wall stops the agent.
    key: of the random cells.

  Returns:
    The next state and the reward, float32 [].
  """
  chex.assert_rank(action, 0)
  row = state.agent // SIZE + jnp.asarray(_ROW_MOVES)[action]
  column = state.agent % SIZE + jnp.asarray(_COLUMN_MOVES)[action]
  row, column = jnp.clip(row, 0, SIZE - 1), jnp.clip(column, 0, SIZE - 1)
  agent = row * SIZE + column

  collected = state.items == agent
  any_collected = jnp.any(collected)
  is_good = collected[good_item(environment, state.time)]
  reward = jnp.where(
    any_collected, jnp.where(is_good, GOOD_REWARD, BAD_REWARD), STEP_REWARD
  )

  if environment.respawn == 'all':
    new_agent, *new_items = _random_cells(key)
    agent = jnp.where(any_collected, new_agent, agent)
    items = jnp.where(any_collected, jnp.stack(new_items), state.items)
  else:
    left = jnp.where(collected[0], state.items[1], state.items[0])
    new_item = _random_free_cell(key, agent, left)
    items = jnp.where(collected, new_item, state.items)
  return State(agent, items, state.time + 1), reward


def observe(state: State) -> jax.Array:
  """Returns the observation, float32 [30]: one-hot columns and rows."""
  cells = jnp.concatenate([state.agent[None], state.items])
  places = jnp.stack([cells % SIZE, cells // SIZE], axis=1)
  return jax.nn.one_hot(places, SIZE).reshape(OBSERVATION_SIZE)


def _random_cells(key: jax.Array) -> list[jax.Array]:
  """Returns three cells, no two of them equal."""
  first_key, second_key, third_key = jax.random.split(key, 3)
  first = jax.random.randint(first_key, (), 0, NUM_CELLS)
  second = _skip(jax.random.randint(second_key, (), 0, NUM_CELLS - 1), first)
  return [first, second, _random_free_cell(third_key, first, second)]


def _random_free_cell(
  key: jax.Array, taken: jax.Array, also_taken: jax.Array
) -> jax.Array:
  cell = jax.random.randint(key, (), 0, NUM_CELLS - 2)
  # In this order, or the second could land on the first.
  cell = _skip(cell, jnp.minimum(taken, also_taken))
  return _skip(cell, jnp.maximum(taken, also_taken))


def _skip(cell: jax.Array, taken: jax.Array) -> jax.Array:
  """Numbers the cells other than `taken`: 0, 1, ... without a gap."""
  return cell + (cell >= taken)
