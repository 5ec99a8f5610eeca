"""One training step, without other processes: cost, losses, gradients."""
