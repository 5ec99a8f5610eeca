import itertools

import numpy as np

from bmg.agents import seeding


def test_every_life_of_every_process_has_its_own_seeds():
  seeds = [
    int(seeding.derive_seeds(run_seed, role, index, incarnation)[0])
    for run_seed, role, index, incarnation in itertools.product(
      range(3), ('learner', 'actor', 'evaluator', 'replay'), range(5), range(5)
    )
  ]
  assert len(set(seeds)) == len(seeds)


def test_seeds_are_reproducible_and_extensible():
  four = seeding.derive_seeds(7, 'actor', 3, 1, num_seeds=4)
  six = seeding.derive_seeds(7, 'actor', 3, 1, num_seeds=6)
  np.testing.assert_array_equal(four, six[:4])
  assert len(set(six.tolist())) == 6


def test_seeds_are_non_negative_31_bit_integers():
  seeds = seeding.derive_seeds(0, 'actor', num_seeds=1000)
  assert seeds.dtype == np.int32
  assert seeds.min() >= 0
  assert seeds.max() > 2**30
