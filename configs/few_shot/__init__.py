"""Studies of few-shot learning, `python -m experiments.few_shot`."""
