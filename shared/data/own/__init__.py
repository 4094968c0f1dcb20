"""Your own slides and images: folders of classes, slides with annotation files, and whether the slides can be used."""
