"""Label and learn: the labels that the page of `scripts/view.py` stores, and the training of a bundle's head from them."""
