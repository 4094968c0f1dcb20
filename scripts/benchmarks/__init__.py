"""What `scripts/benchmark.py` measures, one file a command: `add_arguments` of its parser, and `run`."""
