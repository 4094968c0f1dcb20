"""The options of the data sets that are prepared from one folder into another."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path


def add_folder_options(parser: ArgumentParser, source: str, missing: str = "is not there") -> None:
    """Add ``source``, ``output`` and ``--allow_missing``.

    Args:
        parser: to add them to.
        source: what the unpacked folder is, and has in it.
        missing: what ``--allow_missing`` leaves out.
    """
    parser.add_argument("source", type=Path, help=source)
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--allow_missing", action="store_true", help=f"leave out what {missing}")
