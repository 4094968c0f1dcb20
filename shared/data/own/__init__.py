"""Your own slides and images: folders of classes, and slides with annotation files."""
