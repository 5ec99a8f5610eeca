"""Leaky V-trace against RLax's, which serves as an oracle here alone."""

import subprocess
import sys

# RLax refuses to be imported beside the TensorFlow that Reverb needs, so the
# comparison has a process of its own. RLax knows one leak and no trust region,
# but both can be put into its other arguments: a lambda by step makes up the
# difference between the cuts, and a ratio of 0 ends a return.
_COMPARISON = """
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import rlax
from bmg.agents import vtrace


def mixed(leak, bound, ratios):
  return leak * jnp.minimum(bound, ratios) + (1.0 - leak) * ratios


@jax.jit
def pairs(values, rewards, discounts, ratios, trusted, hypers, rho_bar):
  '''Returns what should agree: ours, and RLax's.'''
  cut_leak = 0.6

  def ours(discount, trace_lambda, leak, cut_leak=None, trusted=None):
    return vtrace.leaky_vtrace(
      values, rewards, discount * discounts, ratios, trace_lambda, leak,
      cut_leak, trusted, rho_bar)

  def errors(*args):
    return ours(*args).targets - values[:-1]

  def oracle(discount, trace_lambda, leak, ratios=ratios):
    return rlax.leaky_vtrace(
      values[:-1], values[1:], rewards, discount * discounts, ratios,
      alpha_=leak, lambda_=trace_lambda, clip_rho_threshold=rho_bar,
      stop_target_gradients=False)

  discount, trace_lambda, leak = hypers
  by_step = trace_lambda * mixed(cut_leak, 1.0, ratios) / mixed(
    leak, 1.0, ratios)
  # RLax mixes lambda into its Q estimate, so that they agree at 1.
  at_one = ours(discount, 1.0, leak)
  oracle_at_one = rlax.leaky_vtrace_td_error_and_advantage(
    values[:-1], values[1:], rewards, discount * discounts, ratios,
    alpha=leak, clip_rho_threshold=rho_bar, clip_pg_rho_threshold=rho_bar)
  return {
    'errors': (errors(*hypers), oracle(*hypers)),
    'slopes': tuple(
      jnp.stack(jax.jacfwd(f, (0, 1, 2))(*hypers)) for f in (errors, oracle)),
    'trusted': (
      errors(*hypers, None, trusted), oracle(*hypers, ratios * trusted)),
    'cut_leak': (
      errors(*hypers, cut_leak), oracle(discount, by_step, leak)),
    'q_estimates': (at_one.q_estimates, oracle_at_one.q_estimate),
    'advantages': (
      at_one.rhos * (at_one.q_estimates - values[:-1]),
      oracle_at_one.pg_advantage),
  }


rng = np.random.default_rng(0)
for leak, trace_lambda, rho_bar in itertools.product(
    (0.0, 0.3, 1.0), (0.5, 1.0), (1.0, 2.0)):
  compared = pairs(*(jnp.asarray(x, jnp.float32) for x in (
    rng.normal(size=9),
    rng.normal(size=8),
    rng.random(8) > 0.2,
    np.exp(rng.normal(size=8)),
    rng.random(8) > 0.3,
    (0.9, trace_lambda, leak),
    rho_bar,
  )))
  for name, (ours, oracle) in compared.items():
    np.testing.assert_allclose(
      ours, oracle, rtol=1e-4, atol=1e-5, err_msg=name)
print('agree')
"""


def test_agrees_with_rlax():
  result = subprocess.run(
    [sys.executable, '-c', _COMPARISON],
    capture_output=True,
    text=True,
    timeout=200,
    check=False,
  )
  assert result.stdout.strip().endswith('agree'), result.stderr
