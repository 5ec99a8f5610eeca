"""Leaky V-trace against RLax's, which serves as an oracle here alone."""

import subprocess
import sys

# RLax refuses to be imported beside the TensorFlow that Reverb needs, so the
# comparison has a process of its own.
_COMPARISON = """
import jax.numpy as jnp
import numpy as np
import rlax
from agents import vtrace

rng = np.random.default_rng(0)
for leak in (0.0, 0.3, 1.0):
  for trace_lambda in (0.5, 1.0):
    values = jnp.asarray(rng.normal(size=9), jnp.float32)
    rewards = jnp.asarray(rng.normal(size=8), jnp.float32)
    discounts = jnp.asarray(0.9 * (rng.random(8) > 0.2), jnp.float32)
    ratios = jnp.asarray(np.exp(rng.normal(size=8)), jnp.float32)
    errors = rlax.leaky_vtrace(
      values[:-1], values[1:], rewards, discounts, ratios,
      alpha_=leak, lambda_=trace_lambda)
    ours = vtrace.leaky_vtrace(
      values, rewards, discounts, ratios, trace_lambda, leak)
    np.testing.assert_allclose(
      ours.targets - values[:-1], errors, rtol=1e-4, atol=1e-5)
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
