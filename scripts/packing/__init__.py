"""What `scripts/pack.py` does: a bundle and its trained weights become a zip that MONAI downloads; verified."""
