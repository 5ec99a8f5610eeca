"""Runs a program on one machine, or one task of it: supervised processes."""
