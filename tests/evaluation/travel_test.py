import math

import pytest

from bmg.evaluation import travel


@pytest.mark.parametrize(
  ('arguments', 'hardly'),
  [
    ((-0.001, 0.0001, 5000), True),
    ((-0.5, 0.0001, 5000), False),  # It came far, if slowly.
    ((0.001, 0.5, 5000), False),  # It may have come back.
    ((0.001, 0.0001, 50), False),  # It has only begun.
    ((math.nan, 0.0001, 5000), False),
    ((0.001, math.nan, 5000), False),
    ((0.001, 0.0001, math.nan), False),
  ],
)
def test_what_hardly_moves(arguments, hardly):
  assert travel.hardly_moves(*arguments) == hardly
