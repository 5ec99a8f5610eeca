"""Two colors, a world that changes: Flennerhag et al. (2022), section 5.1.

`environment` is the world, `actor_critic` and `q_lambda` are the agents, `run`
runs many seeds of one agent at once, and `report` compares.
"""
