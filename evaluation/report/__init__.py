"""The report on runs of Atari: `python -m evaluation.report`."""
