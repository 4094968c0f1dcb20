"""Maps of the served slides, and their outlines."""
