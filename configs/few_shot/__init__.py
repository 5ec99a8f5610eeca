"""Studies of few-shot learning, `python -m bmg few-shot`."""
