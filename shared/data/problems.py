"""Problems of a folder of data, gathered so that one message names all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

_MAX_NAMED = 5


class Problems:
    """Files that cannot be used, by the reason.

    >>> problems = Problems()
    >>> problems.add("slides without annotations", "a.tif", "b.tif")
    >>> problems.report("slides", allow=True)
    ['left out 2 slides without annotations: a.tif, b.tif']
    """

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, *names: object) -> None:
        """Note files.

        Args:
            what: they are, such as "slides without annotations".
            names: of the files, or sentences that name them; none adds nothing.
        """
        self._names[what] += map(str, names)

    def report(self, source: str | Path, allow: bool) -> list[str]:
        """Remarks on all that was noted; an error unless that is allowed.

        Args:
            source: where the files are, for the error.
            allow: leave the files out instead of raising.

        Raises:
            ValueError: naming the first few of each kind.
        """
        found = [f"{len(names)} {what}: {first_names(names)}" for what, names in self._names.items() if names]
        if found and not allow:
            raise ValueError("\n  ".join([f"{source} cannot be used as it is (allow_missing leaves these files out):", *found]))
        return [f"left out {what}" for what in found]


def first_names(names: Sequence[str]) -> str:
    """The first few names, and how many more there are.

    >>> first_names([f"{letter}.tif" for letter in "abcdefg"])
    'a.tif, b.tif, c.tif, d.tif, e.tif and 2 more'
    """
    return ", ".join(names[:_MAX_NAMED]) + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")
