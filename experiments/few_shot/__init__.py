"""Few-shot learning: Flennerhag et al. (2022), section 6 and appendix D.

The meta-parameters are an initialisation. `learners` has MAML and BMG, `tasks`
and `images` have the tasks, `training` runs one seed, and `report` compares.
"""
