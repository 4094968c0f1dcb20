"""Where on a slide there is tissue, and where glass, ink or nothing."""
