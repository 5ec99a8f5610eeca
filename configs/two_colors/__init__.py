"""Studies of the two-colors grid world, `python -m bmg two-colors`."""
