"""Runs a program as a JobSet of Kubernetes."""
