"""The page that `scripts/view.py` opens: slides, their maps and the truth, in a browser on this machine."""
