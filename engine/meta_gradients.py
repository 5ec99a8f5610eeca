"""Bootstrapped meta-gradients, for any update rule: Flennerhag et al. (2022).

An agent's update rule depends on meta-parameters w. The engine applies it K
times, asks an outer loss how good the resulting parameters x^(K)(w) are, and
differentiates that in w. With the bootstrapped outer loss, the target is what
further updates make of x^(K) (section 3, equation 3):

    target = stop_gradient(bootstrap(x^(K)))
    w <- w - beta * grad_w matching(target, x^(K)(w)).

An update rule, a target bootstrap, a matching function and a meta-optimiser
make a `meta_learner`.

Nothing here knows about reinforcement learning. Parameters, optimiser states,
meta-parameters and data are arbitrary pytrees.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax

from bmg.engine import mixed_mode

PyTree = Any


class AgentState(NamedTuple):
  """What an update rule moves: parameters x and optimiser statistics h."""

  params: PyTree
  opt_state: optax.OptState


class MetaData(NamedTuple):
  """The data of one meta-step."""

  # K batches, one for each differentiated update.
  inner: Sequence[PyTree]
  # L - 1 batches for the target's first updates.
  bootstrap: Sequence[PyTree]
  # For the target's last update, and what the outer loss is measured on.
  final: PyTree


# (params, frozen_params, meta_params, batch) -> (scalar, auxiliary outputs).
# The update differentiates in `params` alone. `frozen_params` are the same
# parameters, for what that gradient must treat as constant, such as value
# targets that bootstrap; meta-gradients do pass through them.
Loss = Callable[[PyTree, PyTree, PyTree, PyTree], tuple[jax.Array, PyTree]]
# (state, meta_params, batch) -> (next state, auxiliary outputs). A rule that
# pursues the true objective, a plain one, gets None for meta_params.
UpdateRule = Callable[[AgentState, PyTree, PyTree], tuple[AgentState, PyTree]]
# (target parameters, parameters, batch) -> (scalar, auxiliary outputs).
MatchingFunction = Callable[[PyTree, PyTree, PyTree], tuple[jax.Array, PyTree]]


class UpdateAux(NamedTuple):
  """Auxiliary outputs of a `gradient_update`; constants."""

  gradient: PyTree
  loss_aux: PyTree


class Target(NamedTuple):
  """What a bootstrap makes of x^(K)."""

  params: PyTree
  # The agent after the bootstrap's meta-learned updates, and their auxiliary
  # outputs: for an agent that goes on from there.
  agent: AgentState
  agent_aux: Sequence[PyTree]
  # The bootstrap's next state.
  state: PyTree


class TargetBootstrap(NamedTuple):
  """Makes targets; a pair of pure functions, like an Optax transformation."""

  # (params) -> state, for an optimiser that only targets are made with.
  init: Callable[[PyTree], PyTree]
  # (x^(K), meta_params, state, data) -> Target.
  make: Callable[[AgentState, PyTree, PyTree, MetaData], Target]


class OuterResult(NamedTuple):
  """What an outer loss has found out besides its value."""

  # Where the agent goes on, and the auxiliary outputs of the updates to there.
  agent: AgentState
  agent_aux: Sequence[PyTree]
  # The next state of the outer loss.
  state: PyTree
  aux: PyTree


class OuterLoss(NamedTuple):
  """Judges x^(K); a pair of pure functions."""

  # (params) -> state.
  init: Callable[[PyTree], PyTree]
  # (x^(0), x^(K), meta_params, state, data) -> (scalar, OuterResult).
  apply: Callable[
    [AgentState, AgentState, PyTree, PyTree, MetaData],
    tuple[jax.Array, OuterResult],
  ]


class MetaState(NamedTuple):
  """What meta-learning moves: w, and the statistics that go with it."""

  params: PyTree
  opt_state: optax.OptState
  outer_state: PyTree


class MetaStepOutput(NamedTuple):
  """The result of one meta-step."""

  # The agent's next state: x^(K), or beyond.
  agent: AgentState
  meta: MetaState
  # Before the meta-optimiser clips it, and the step that it makes of it.
  meta_gradient: PyTree
  meta_update: PyTree
  outer_loss: jax.Array
  # Auxiliary outputs of the agent's updates (a list) and of the outer loss.
  agent_aux: Sequence[PyTree]
  outer_aux: PyTree


class MetaLearner(NamedTuple):
  """Meta-learning as a pair of pure functions."""

  # (meta_params, params) -> MetaState.
  init: Callable[[PyTree, PyTree], MetaState]
  # (agent, meta, data) -> MetaStepOutput.
  step: Callable[[AgentState, MetaState, MetaData], MetaStepOutput]


def gradient_update(
  loss: Loss,
  optimizer: optax.GradientTransformation,
  rematerialize: bool = False,
) -> UpdateRule:
  """Returns the update rule x + optimizer(grad_x loss(x, x, w, batch)).

  Args:
    loss: the (meta-parameterised) objective.
    optimizer: must have finite derivatives; see `engine.optimizers`.
    rematerialize: see `mixed_mode.gradient`; for K > 1, where a meta-gradient
      would otherwise keep the activations of all K updates.

  Returns:
    An update rule with `UpdateAux`.
  """
  gradient = mixed_mode.gradient(loss, rematerialize)

  def update(
    state: AgentState, meta_params: PyTree, batch: PyTree
  ) -> tuple[AgentState, UpdateAux]:
    grads, aux = gradient(state.params, meta_params, batch)
    steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, steps)
    aux = UpdateAux(jax.lax.stop_gradient(grads), aux)
    return AgentState(params, opt_state), aux

  return update


def repeated(update: UpdateRule, count: int) -> UpdateRule:
  """Returns the rule that applies `update` `count` times, in one scan.

  Compiles as quickly as a single update. Not for convolutions on a CPU, which
  XLA runs slowly inside a loop.

  Args:
    update: the rule.
    count: of updates; the batch of the new rule has them along its first axis,
      and so have its auxiliary outputs.
  """

  def update_repeatedly(
    state: AgentState, meta_params: PyTree, batches: PyTree
  ) -> tuple[AgentState, PyTree]:
    return jax.lax.scan(
      lambda state, batch: update(state, meta_params, batch),
      state,
      batches,
      length=count,
    )

  return update_repeatedly


def grounded_bootstrap(
  update: UpdateRule,
  plain_update: UpdateRule,
  init: Callable[[PyTree], PyTree] | None = None,
) -> TargetBootstrap:
  """Returns the paper's target: L - 1 meta-learned updates, then a plain one.

  The plain one keeps the target from rewarding any w whatever (paper, section 3
  and appendix C).

  Args:
    update: the meta-learned rule, for `data.bootstrap`.
    plain_update: for `data.final`.
    init: makes an optimiser state for `plain_update` alone, kept from one
      target to the next. By default it starts from the agent's, and is dropped.
  """

  def make(
    agent: AgentState, meta_params: PyTree, state: PyTree, data: MetaData
  ) -> Target:
    agent, aux = apply_updates(update, agent, meta_params, data.bootstrap)
    start = agent if init is None else AgentState(agent.params, state)
    end, _ = plain_update(start, None, data.final)
    next_state = state if init is None else end.opt_state
    return Target(end.params, agent, aux, next_state)

  return TargetBootstrap(init or _no_state, make)


def learned_bootstrap(update: UpdateRule) -> TargetBootstrap:
  """Returns a target of L meta-learned updates, which nothing grounds."""

  def make(
    agent: AgentState, meta_params: PyTree, state: PyTree, data: MetaData
  ) -> Target:
    agent, aux = apply_updates(update, agent, meta_params, data.bootstrap)
    end, _ = update(agent, meta_params, data.final)
    return Target(end.params, agent, aux, state)

  return TargetBootstrap(_no_state, make)


def plain_bootstrap(
  plain_update: UpdateRule,
  init: Callable[[PyTree], PyTree] | None = None,
) -> TargetBootstrap:
  """Returns a target of L plain updates.

  Args:
    plain_update: for `data.bootstrap` and `data.final`.
    init: makes an optimiser state for these updates alone; see
      `grounded_bootstrap`.
  """

  def make(
    agent: AgentState, meta_params: PyTree, state: PyTree, data: MetaData
  ) -> Target:
    del meta_params
    start = agent if init is None else AgentState(agent.params, state)
    end, _ = apply_updates(
      plain_update, start, None, [*data.bootstrap, data.final]
    )
    next_state = state if init is None else end.opt_state
    return Target(end.params, agent, [], next_state)

  return TargetBootstrap(init or _no_state, make)


def constant_target(
  bootstrap: TargetBootstrap,
  final: AgentState,
  meta_params: PyTree,
  state: PyTree,
  data: MetaData,
) -> Target:
  """Makes a target that carries no gradient (paper, section 3).

  Neither the parameters that it starts from, nor the w that its updates use.
  """
  constants = jax.lax.stop_gradient((final, meta_params, state))
  return jax.lax.stop_gradient(bootstrap.make(*constants, data))


def bootstrapped_loss(
  bootstrap: TargetBootstrap,
  matching: MatchingFunction,
  keep_updates: bool = False,
) -> OuterLoss:
  """Returns BMG's outer loss: distance of x^(K) to a target made from it.

  Args:
    bootstrap: makes the target.
    matching: the distance.
    keep_updates: the agent goes on after the target's meta-learned updates,
      rather than from x^(K). Nothing but the last update is thrown away then
      (paper, section 5.1). The updates must be the meta-learned rule's.
  """

  def apply(
    start: AgentState,
    final: AgentState,
    meta_params: PyTree,
    state: PyTree,
    data: MetaData,
  ) -> tuple[jax.Array, OuterResult]:
    del start
    target = constant_target(bootstrap, final, meta_params, state, data)
    loss, aux = matching(target.params, final.params, data.final)
    if keep_updates:
      agent, agent_aux = target.agent, target.agent_aux
    else:
      agent, agent_aux = final, []
    return loss, OuterResult(agent, agent_aux, target.state, aux)

  return OuterLoss(bootstrap.init, apply)


def direct_loss(
  loss: Loss,
  distance: MatchingFunction | None = None,
  distance_weight: float = 1.0,
) -> OuterLoss:
  """Returns the outer loss of standard meta-gradients: the plain objective.

  Args:
    loss: the plain objective; gets `None` for the meta-parameters.
    distance: penalises the way from x^(0) to x^(K), such as STACX's KL.
    distance_weight: of that penalty.
  """

  def apply(
    start: AgentState,
    final: AgentState,
    meta_params: PyTree,
    state: PyTree,
    data: MetaData,
  ) -> tuple[jax.Array, OuterResult]:
    del meta_params  # The true objective does not depend on them.
    # Judged by its gradient as an update rule, so targets are constant here.
    frozen_params = jax.lax.stop_gradient(final.params)
    value, aux = loss(final.params, frozen_params, None, data.final)
    if distance is not None:
      penalty, _ = distance(start.params, final.params, data.final)
      value += distance_weight * penalty
    return value, OuterResult(final, [], state, aux)

  return OuterLoss(_no_state, apply)


def _no_state(params: PyTree) -> tuple[()]:
  del params
  return ()


def apply_updates(
  update: UpdateRule,
  state: AgentState,
  meta_params: PyTree,
  batches: Sequence[PyTree],
) -> tuple[AgentState, Sequence[PyTree]]:
  """Applies the rule once per batch; returns x^(K) and each update's aux.

  A Python loop, not a scan: K is small, and XLA runs convolutions inside a
  while loop much slower on CPU.
  """
  auxes = []
  for batch in batches:
    state, aux = update(state, meta_params, batch)
    auxes.append(aux)
  return state, auxes


def meta_learner(
  update: UpdateRule,
  outer_loss: OuterLoss,
  meta_optimizer: optax.GradientTransformation,
) -> MetaLearner:
  """Returns meta-learning of w: a step is K updates and a move of w.

  Args:
    update: the agent's update rule, differentiable in meta_params.
    outer_loss: judges x^(K); `bootstrapped_loss` or `direct_loss`.
    meta_optimizer: moves the meta-parameters.
  """

  def init(meta_params: PyTree, params: PyTree) -> MetaState:
    return MetaState(
      meta_params, meta_optimizer.init(meta_params), outer_loss.init(params)
    )

  def step(
    agent: AgentState, meta: MetaState, data: MetaData
  ) -> MetaStepOutput:
    def objective(
      meta_params: PyTree,
    ) -> tuple[jax.Array, tuple[Sequence[PyTree], OuterResult]]:
      final, aux = apply_updates(update, agent, meta_params, data.inner)
      loss, result = outer_loss.apply(
        agent, final, meta_params, meta.outer_state, data
      )
      return loss, (aux, result)

    (loss, (aux, result)), grads = jax.value_and_grad(objective, has_aux=True)(
      meta.params
    )
    steps, opt_state = meta_optimizer.update(grads, meta.opt_state, meta.params)
    return MetaStepOutput(
      agent=result.agent,
      meta=MetaState(
        optax.apply_updates(meta.params, steps), opt_state, result.state
      ),
      meta_gradient=grads,
      meta_update=steps,
      outer_loss=loss,
      agent_aux=[*aux, *result.agent_aux],
      outer_aux=result.aux,
    )

  return MetaLearner(init, step)
