"""A finished map: stored, outlined, and written as files and numbers."""
