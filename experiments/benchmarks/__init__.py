"""How long things take, as ratios between runs that take turns in one process."""
