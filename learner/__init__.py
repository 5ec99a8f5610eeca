"""The meta-gradient engine, the learner loop, and checkpoints."""
