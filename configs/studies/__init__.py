"""Studies on Atari, whose variants `launch.sweep` trains side by side."""
