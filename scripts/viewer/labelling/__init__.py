"""Label and learn: what the page of `scripts/view.py` keeps of labels, and how a bundle's head is trained from them."""
