"""Augmentation, stain normalisation and super-pixels."""
