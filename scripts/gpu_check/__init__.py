"""What `scripts/check_gpu.py` looks at, each in a separate process, and the table of what passed."""
