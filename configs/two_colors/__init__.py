"""Studies of the two-colors grid world, `python -m experiments.two_colors`."""
