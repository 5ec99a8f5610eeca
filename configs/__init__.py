"""Recipes, and the checked dataclasses that they fill in."""
