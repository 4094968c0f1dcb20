"""``prepare_<data set>.py SOURCE OUT``: its parser, and what it says in the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.front_door import begin_script


def parser_of(description: str | None, source: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all have.

    Args:
        description: the script's docstring.
        source: what the unpacked folder is, and has in it.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help=source)
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--allow_missing", action="store_true", help="leave out what is not there")
    return parser


def run(parser: argparse.ArgumentParser, prepare: Callable[[argparse.Namespace], Sequence[str]]) -> None:
    """Prepare the data set and print what came of it; a ValueError ends the process with its message."""
    begin_script()
    try:
        lines = prepare(parser.parse_args())
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(*lines, sep="\n")
