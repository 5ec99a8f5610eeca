"""Scores, records of a run, reports and plots."""
