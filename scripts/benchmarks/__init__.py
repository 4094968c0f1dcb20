"""The measurements of `scripts/benchmark.py`, one module per command with `add_arguments`, for its parser, and `run`."""
