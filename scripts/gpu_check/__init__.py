"""What `scripts/check_gpu.py` looks at, each in a process of its own, and the table of what passed."""
