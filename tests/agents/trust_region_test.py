"""LASER's relevance measure, by hand and against its definition in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import enable_x64

from bmg.agents import trust_region


def _kl(pi, mu, rho_bar=1.0):
  with enable_x64():
    return np.asarray(
      trust_region.implied_policy_kl(
        jnp.log(jnp.asarray(pi)), jnp.log(jnp.asarray(mu)), rho_bar
      )
    )


def _kl_by_definition(pi, mu, rho_bar):
  """One state: Schmitt et al. (2020), section 4, word by word."""
  clipped = [min(rho_bar * m, p) for p, m in zip(pi, mu, strict=True)]
  implied = [c / sum(clipped) for c in clipped]
  return sum(p * np.log(p / i) for p, i in zip(pi, implied, strict=True))


def test_two_actions_by_hand():
  # min(mu, pi) = (1/4, 1/4): the implied policy is uniform.
  expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
  np.testing.assert_allclose(_kl([0.75, 0.25], [0.25, 0.75]), expected)
  # min(2 mu, pi) = (1/2, 1/4): the implied policy is (2/3, 1/3).
  expected = 0.75 * np.log(9 / 8) + 0.25 * np.log(3 / 4)
  np.testing.assert_allclose(_kl([0.75, 0.25], [0.25, 0.75], 2.0), expected)


@pytest.mark.parametrize('rho_bar', [0.5, 1.0, 1.7])
@pytest.mark.parametrize('scale', [0.3, 3.0])
def test_equals_its_definition(rho_bar, scale):
  rng = np.random.default_rng(0)
  pi, mu = (np.exp(scale * rng.normal(size=(4, 3, 6))) for _ in range(2))
  pi /= pi.sum(axis=-1, keepdims=True)
  mu /= mu.sum(axis=-1, keepdims=True)
  actual = _kl(pi, mu, rho_bar)
  assert actual.shape == (4, 3)
  for index in np.ndindex(4, 3):
    np.testing.assert_allclose(
      actual[index],
      _kl_by_definition(pi[index], mu[index], rho_bar),
      rtol=1e-8,
      atol=1e-14,
    )


def test_zero_exactly_where_the_clip_does_not_distort():
  # Nothing is clipped: pi <= rho_bar * mu for every action.
  np.testing.assert_allclose(_kl([0.6, 0.4], [0.4, 0.6], 1.5), 0.0, atol=1e-15)
  # On-policy data is all clipped alike, below rho_bar = 1 too.
  for rho_bar in (0.3, 1.0):
    np.testing.assert_allclose(
      _kl([0.6, 0.4], [0.6, 0.4], rho_bar), 0.0, atol=1e-15
    )
  # At rho_bar = 1 every other pi is distorted, as some action is likelier.
  assert _kl([0.6, 0.4], [0.59, 0.41]) > 1e-5
  assert _kl([0.601, 0.399], [0.4, 0.6], 1.5) > 1e-8


def test_it_is_not_the_kl_of_pi_and_mu():
  # An action that mu takes often and pi never does costs nothing: its samples
  # are weighted down. The other way round, no weight can make up for it.
  rare, often = [1 - 1e-6, 1e-6], [0.5, 0.5]
  assert _kl(rare, often) < 1e-5
  assert _kl(often, rare) > 5.0


@pytest.mark.parametrize('size', [1.0, 1e2, 1e4])
def test_finite_in_float32_with_a_finite_gradient(size):
  rng = np.random.default_rng(1)
  signs = rng.choice([-1.0, 0.0, 1.0], size=(2, 200, 3)).astype(np.float32)
  logits, behaviour_logits = jnp.asarray(size * signs)
  kl = trust_region.implied_policy_kl(logits, behaviour_logits)
  assert kl.dtype == jnp.float32
  assert np.all(np.isfinite(kl))
  assert np.all(kl > -1e-5)
  # Far apart is far outside of the region.
  assert np.max(kl) > 0.5 * size
  gradients = jax.grad(
    lambda *args: trust_region.implied_policy_kl(*args).sum(), argnums=(0, 1)
  )(logits, behaviour_logits)
  assert np.all(np.isfinite(gradients))
