"""What a TIFF says of itself, and its single tiles."""
