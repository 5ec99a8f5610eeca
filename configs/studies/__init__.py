"""Studies on Atari, whose variants `bmg sweep` trains side by side."""
