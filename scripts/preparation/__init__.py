"""One module for each data set that `scripts/prepare.py` prepares, found by its function ``prepare``.

Its docstring is the description of the command, whose first line is shown by ``prepare.py --help``. It has
``add_arguments(parser)`` and ``prepare(arguments)``, which does the work and returns or yields the lines to print; it raises a
ValueError for data that cannot be used, and an argparse.ArgumentError for options that do not go together.
"""
