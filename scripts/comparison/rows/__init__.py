"""A row for each method: its scores and costs, what earlier calls left, and the differences between methods."""
