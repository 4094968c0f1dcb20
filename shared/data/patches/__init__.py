"""Slides and images cut into regions and patches: manifest records, no pixel is copied."""
