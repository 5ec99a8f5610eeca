"""What a run is: its folder, its files, its nodes, how it is shown."""
