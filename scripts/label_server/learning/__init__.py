"""From weak labels of slides to a trained head and new maps, for the label server and for the page of `scripts/view.py`.

Nothing here imports MONAI Label.
"""
