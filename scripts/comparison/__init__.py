"""What `scripts/compare.py` does: every method on one data set, scored by one scorer, in one report."""
