"""The actor-critic of two colors as one would write it in PyTorch.

The world is plain Python, each step is a call of the policy network, and each
rollout a call of autograd and of the optimiser. Usage, with any Python that has
PyTorch: python benchmarks/two_colors/torch_steps.py SECONDS. Prints steps per
second.
"""

import random
import sys
import time

import torch
from torch import nn

_SIZE = 5
_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
_SWITCH_INTERVAL = 100_000
_ROLLOUT_LENGTH = 16
_DISCOUNT = 0.99
_LEARNING_RATE = 0.1
_ENTROPY_WEIGHT = 0.2
_WARM_UP_S = 1.0


class World:
  """The grid: columns and rows of the agent and of both items."""

  def __init__(self) -> None:
    cells = [(x, y) for x in range(_SIZE) for y in range(_SIZE)]
    self._agent, *self._items = random.sample(cells, 3)
    self._cells = cells
    self._time = 0

  def observe(self) -> list[float]:
    observation = [0.0] * (6 * _SIZE)
    for index, (x, y) in enumerate((self._agent, *self._items)):
      observation[2 * _SIZE * index + x] = 1.0
      observation[2 * _SIZE * index + _SIZE + y] = 1.0
    return observation

  def step(self, action: int) -> float:
    x, y = (
      min(max(place + move, 0), _SIZE - 1)
      for place, move in zip(self._agent, _MOVES[action], strict=True)
    )
    self._agent = (x, y)
    good = self._time // _SWITCH_INTERVAL % 2
    self._time += 1
    if self._agent not in self._items:
      return -0.04
    collected = self._items.index(self._agent)
    taken = (self._agent, self._items[1 - collected])
    free = [cell for cell in self._cells if cell not in taken]
    self._items[collected] = random.choice(free)
    return 1.0 if collected == good else -1.0


def _make_network(num_outputs: int) -> nn.Module:
  return nn.Sequential(
    nn.Linear(6 * _SIZE, 256),
    nn.ReLU(),
    nn.Linear(256, 256),
    nn.ReLU(),
    nn.Linear(256, num_outputs),
  )


class Agent:
  """Acts for a rollout, then learns from it."""

  def __init__(self) -> None:
    self._world = World()
    self._policy = _make_network(len(_MOVES))
    self._value = _make_network(1)
    self._optimizer = torch.optim.SGD(
      [*self._policy.parameters(), *self._value.parameters()],
      lr=_LEARNING_RATE,
    )

  def update(self) -> None:
    observations, actions, rewards = [], [], []
    with torch.no_grad():
      for _ in range(_ROLLOUT_LENGTH):
        observation = self._world.observe()
        logits = self._policy(torch.tensor(observation))
        action = int(torch.multinomial(torch.softmax(logits, dim=-1), 1))
        observations.append(observation)
        actions.append(action)
        rewards.append(self._world.step(action))
      observations.append(self._world.observe())
    states = torch.tensor(observations)
    values = self._value(states).squeeze(-1)
    frozen = values.detach()
    targets = torch.tensor(rewards) + _DISCOUNT * frozen[1:]
    # What follows an action is worth the next state's target, as far as known.
    following = torch.cat([targets[1:], frozen[-1:]])
    advantages = torch.tensor(rewards) + _DISCOUNT * following - frozen[:-1]
    log_probs = torch.log_softmax(self._policy(states[:-1]), dim=-1)
    chosen = log_probs[torch.arange(len(actions)), torch.tensor(actions)]
    entropies = -(log_probs.exp() * log_probs).sum(dim=-1)
    loss = torch.mean(
      -chosen * advantages
      - _ENTROPY_WEIGHT * entropies
      + 0.5 * torch.square(targets - values[:-1])
    )
    self._optimizer.zero_grad()
    loss.backward()
    self._optimizer.step()


def _steps_per_second(agent: Agent, seconds: float) -> float:
  start, steps = time.monotonic(), 0
  while time.monotonic() - start < seconds:
    agent.update()
    steps += _ROLLOUT_LENGTH
  return steps / (time.monotonic() - start)


def main() -> None:
  """Measures for as many seconds as the command line says."""
  torch.set_num_threads(1)
  agent = Agent()
  _steps_per_second(agent, _WARM_UP_S)
  print(_steps_per_second(agent, float(sys.argv[1])))


if __name__ == '__main__':
  main()
