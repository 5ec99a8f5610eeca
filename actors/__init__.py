"""Environments, the acting loop and the evaluator."""
