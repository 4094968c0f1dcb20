"""Error messages for clients, in which files have their names but not their folders on this machine."""

from __future__ import annotations

import re

# Paths begin after a blank, a quote or a bracket. Addresses (https://...) and alternatives (and/or) are not paths.
_PATH = re.compile(r"""(?<![\w./:\\])(?:/[^\s/'"()\[\]{},;:<>]+)+/([^\s/'"()\[\]{},;:<>]*)""")
_WINDOWS = re.compile(r"""(?<![\w])[A-Za-z]:\\(?:[^\s\\'"<>]+\\)*([^\s\\'"<>]*)""")


class PlainErrors:
    """Removes folders from error messages.

    Args:
        folders: known folders, whose names may contain blanks; of paths inside them only the file name remains.
    """

    def __init__(self, folders: tuple[str, ...] = ()) -> None:
        inside = sorted({folder.rstrip("/") for folder in folders if len(folder) > 1}, key=len, reverse=True)
        self._inside = re.compile("|".join(rf"{re.escape(folder)}/(?:[^\s'\"]*/)?" for folder in inside)) if inside else None
        self._themselves = re.compile("|".join(map(re.escape, inside))) if inside else None

    def __call__(self, text: str) -> str:
        """The text, with absolute paths reduced to file names.

        >>> PlainErrors(("/slides of a study",))("cannot read /slides of a study/a/b.svs, nor '/archive/x/c.tif'")
        "cannot read b.svs, nor 'c.tif'"
        """
        if self._inside is not None and self._themselves is not None:
            text = self._inside.sub("", text)
            text = self._themselves.sub(lambda found: found.group().rpartition("/")[2], text)
        return _WINDOWS.sub(r"\1", _PATH.sub(r"\1", text))
