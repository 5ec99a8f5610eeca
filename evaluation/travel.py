"""Says which meta-parameters hardly move."""

# Of a value between 0 and 1, a quarter of a hundredth at most.
LITTLE_TRAVEL = 0.01
SMALL_SHARE = 0.01
# Before, even one that learns may not have come far.
ENOUGH_UPDATES = 1000


def hardly_moves(travel: float, share: float, num_updates: float) -> bool:
  """Whether a meta-parameter might as well not be learned.

  Args:
    travel: logits from where it started.
    share: its steps as a share of the meta-optimiser's nominal one.
    num_updates: inner updates so far.

  Returns:
    False also where one of them is NaN, or the run too young to tell.
  """
  return (
    abs(travel) < LITTLE_TRAVEL
    and share < SMALL_SHARE
    and num_updates >= ENOUGH_UPDATES
  )
