"""Submits, watches and resumes a grid of games x seeds, each cell a run."""
