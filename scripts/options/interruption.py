"""How a command ends that may be interrupted and resumed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED = 130


def exit_with(run: Callable[[], int]) -> NoReturn:
    """Exit with the status that `run` returns; after Ctrl-C with 130 and a word on how to resume."""
    try:
        sys.exit(run())
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(INTERRUPTED)
