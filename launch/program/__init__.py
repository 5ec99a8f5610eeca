"""The Launchpad program of a run, and what runs in each of its processes."""
