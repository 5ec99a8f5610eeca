"""Runs a program as jobs of Slurm."""
