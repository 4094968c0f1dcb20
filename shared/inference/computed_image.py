"""An image that the network has processed and whose files are still to be written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from .row import Row


@dataclass(frozen=True)
class ComputedImage:
    """The work that remains for an image, in any thread and while the device computes another. It must be written or closed.

    Args:
        results: writes the image's files and gives the numbers of its row.
        held: what they are made of.
    """

    results: Callable[[], Row]
    held: ExitStack

    def write(self) -> Row:
        """Write the files; return the numbers of the row."""
        with self.held:
            return self.results()

    def close(self) -> None:
        """Let go of what it holds."""
        self.held.close()
