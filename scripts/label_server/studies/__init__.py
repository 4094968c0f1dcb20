"""The studies folder: its slides, the labels given to them, and the areas drawn on them."""
