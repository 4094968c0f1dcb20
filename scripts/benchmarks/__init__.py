"""What `scripts/benchmark.py` measures, one file per command: `add_arguments` of its parser, and `run`."""
