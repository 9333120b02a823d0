"""Values with intervals, and whether two differ."""
