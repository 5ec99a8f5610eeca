"""The paper's laptop-scale studies, on the engine that trains on Atari."""
