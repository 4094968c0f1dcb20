"""What the files of masks mean."""
