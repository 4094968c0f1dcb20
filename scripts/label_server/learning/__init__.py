"""Weak labels of slides become a trained head and new maps: what the label server and the page of `scripts/view.py` share.

Nothing here imports MONAI Label.
"""
