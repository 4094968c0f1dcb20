"""The tags of a TIFF, and its single tiles."""
