"""Weak labels, enriched labels, classes and areas of images."""
