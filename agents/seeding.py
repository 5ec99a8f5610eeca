"""Where every random number of a run comes from.

All seeds descend from the run's one seed by name: which process, which of its
kind, and which of its lives. A restarted process so never replays the random
numbers of its former life, and adding a process changes no other's stream.
"""

from typing import Literal, get_args

import numpy as np

Role = Literal['learner', 'actor', 'evaluator', 'replay', 'inference']

_ROLES = get_args(Role)


def derive_seeds(
  run_seed: int,
  role: Role,
  index: int = 0,
  incarnation: int = 0,
  num_seeds: int = 1,
) -> np.ndarray:
  """Returns independent seeds for one life of one process.

  Args:
    run_seed: `config.seed`.
    role: what the process is.
    index: which of its kind it is (or, for work that is repeated, which turn).
    incarnation: how often it has been restarted.
    num_seeds: how many seeds it needs. Asking for more leaves the first ones
      as they were.

  Returns:
    int32 [num_seeds], in [0, 2^31).
  """
  sequence = np.random.SeedSequence(
    run_seed, spawn_key=(_ROLES.index(role), index, incarnation)
  )
  # Emulators and JAX take non-negative 32-bit integers: drop one bit.
  return (sequence.generate_state(num_seeds, np.uint32) >> 1).astype(np.int32)
