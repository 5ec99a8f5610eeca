"""The report on runs of Atari: `python -m bmg report`."""
