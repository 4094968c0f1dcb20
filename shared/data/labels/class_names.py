"""The names by which folders and annotations call classes, and the indices of these."""

from __future__ import annotations

from collections.abc import Sequence

from ...wsi.annotations.reading import plain_name


class ClassNames:
    """Class indices by name; case and blanks do not count.

    Args:
        classes: a name for each index, background first, or several with ``|`` between them.

    Raises:
        ValueError: for fewer than two classes, an empty name, or one that is there twice.

    >>> classes = ClassNames(["normal|Stroma", "Tumor"])
    >>> classes.names, classes.index_of("stroma "), classes.index_of("tumor"), classes.knows("Necrosis")
    (['normal', 'Tumor'], 0, 1, False)
    """

    def __init__(self, classes: Sequence[str]) -> None:
        aliases = [[name.strip() for name in names.split("|")] for names in classes]
        self._indices = {plain_name(name): index for index, names in enumerate(aliases) for name in names}
        if len(aliases) < 2 or len(self._indices) != sum(map(len, aliases)) or "" in self._indices:
            raise ValueError(f"classes must be at least two different names, background first; got {', '.join(classes)}")
        # The first of each index.
        self.names = [names[0] for names in aliases]

    def knows(self, name: str) -> bool:
        """Whether a class has this name."""
        return plain_name(name) in self._indices

    def index_of(self, name: str) -> int:
        """The index of a class that is known."""
        return self._indices[plain_name(name)]
