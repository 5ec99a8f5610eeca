"""BMG learns the learning rate of SGD on a regression that drifts."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bmg import engine

NUM_STEPS, NUM_SEEDS, NUM_ROWS = 4000, 8, 8
SCALES = jnp.logspace(0.0, -1.0, 10)  # Of the inputs: ill-conditioned.


def loss(params: Any, frozen_params: Any, w: Any, batch: Any) -> Any:
  """SGD with rate 1 on this is SGD with rate e^w on the mean squared error."""
  error = jnp.mean((batch[0] @ params - batch[1]) ** 2)
  return jnp.exp(w) * error / 2, error


sgd = optax.sgd(1.0)
update = engine.gradient_update(loss, sgd)
plain_update = lambda state, w, batch: update(state, jnp.log(0.1), batch)
bootstrap = engine.grounded_bootstrap(update, plain_update)
# How far the target's predictions are from those of x.
matching = lambda y, x, batch: (jnp.mean((batch[0] @ (y - x)) ** 2), None)
outer_loss = engine.bootstrapped_loss(bootstrap, matching)


def run(key: jax.Array, rate: float, meta_rate: float) -> Any:
  """Returns the error and the learning rate of each step, [NUM_STEPS]."""
  learner = engine.meta_learner(update, outer_loss, optax.adam(meta_rate))

  def step(carry: Any, key: jax.Array) -> Any:
    agent, meta, solution = carry
    keys = jax.random.split(key, 3)
    solution += 0.03 * jax.random.normal(keys[0], solution.shape)
    inputs = SCALES * jax.random.normal(keys[1], (3, 16, len(SCALES)))
    labels = inputs @ solution + 0.5 * jax.random.normal(keys[2], (3, 16))
    first, second, last = zip(inputs, labels, strict=True)
    # K = 1, L = 2: the target takes a meta-learned update and a plain one.
    out = learner.step(agent, meta, engine.MetaData([first], [second], last))
    logged = out.agent_aux[0].loss_aux, jnp.exp(meta.params)
    return (out.agent, out.meta, solution), logged

  zeros = jnp.zeros_like(SCALES)
  meta = learner.init(jnp.log(rate), zeros)
  start = (engine.AgentState(zeros, sgd.init(zeros)), meta, zeros)
  return jax.lax.scan(step, start, jax.random.split(key, NUM_STEPS))[1]


if __name__ == '__main__':
  keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
  runs = jax.jit(jax.vmap(run, (0, None, None)))
  fixed = [runs(keys, rate, 0.0)[0] for rate in (0.001, 0.3)]
  table = jnp.stack([*fixed, *runs(keys, 0.001, 0.01)]).mean(axis=1)
  print('error at 0.001   error at 0.3   error, learned   learned rate')
  for row in table.reshape(4, NUM_ROWS, -1).mean(axis=-1).T:
    print('{:14.3f}{:15.3f}{:17.3f}{:15.4f}'.format(*row))
