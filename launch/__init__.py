"""Builds the Launchpad program; starts, watches and stops its processes."""
