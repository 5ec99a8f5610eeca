"""What becomes of runs whose processes die, hang, swell or are stopped."""
