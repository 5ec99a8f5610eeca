"""Pure functions and Haiku networks: V-trace, losses, meta-parameters."""
