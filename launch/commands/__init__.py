"""What a user types: train, evaluate, stop, watch, sweep, doctor."""
