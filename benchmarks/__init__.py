"""Measures how fast the parts and the whole are."""
