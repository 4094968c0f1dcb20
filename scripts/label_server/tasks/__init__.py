"""What MONAI Label's clients may ask of a bundle: maps, a training, and what to label next."""
