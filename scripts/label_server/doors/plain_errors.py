"""Errors as clients are told of them: files by their names, not by where they lie on this machine."""

from __future__ import annotations

import re

# From a blank, a quote or a bracket on. An address (https://...) and a share (and/or) are no paths.
_PATH = re.compile(r"""(?<![\w./:\\])(?:/[^\s/'"()\[\]{},;:<>]+)+/([^\s/'"()\[\]{},;:<>]*)""")
_WINDOWS = re.compile(r"""(?<![\w])[A-Za-z]:\\(?:[^\s\\'"<>]+\\)*([^\s\\'"<>]*)""")


class PlainErrors:
    """Takes the folders out of what errors say.

    Args:
        folders: that are known and may have blanks in their names; what lies in them is named from there on.
    """

    def __init__(self, folders: tuple[str, ...] = ()) -> None:
        inside = sorted({folder.rstrip("/") for folder in folders if len(folder) > 1}, key=len, reverse=True)
        self._inside = re.compile("|".join(rf"{re.escape(folder)}/(?:[^\s'\"]*/)?" for folder in inside)) if inside else None
        self._themselves = re.compile("|".join(map(re.escape, inside))) if inside else None

    def __call__(self, text: str) -> str:
        """The text, without a path from the root.

        >>> PlainErrors(("/slides of a study",))("cannot read /slides of a study/a/b.svs, nor '/tmp/x/c.tif'")
        "cannot read b.svs, nor 'c.tif'"
        """
        if self._inside is not None and self._themselves is not None:
            text = self._inside.sub("", text)
            text = self._themselves.sub(lambda found: found.group().rpartition("/")[2], text)
        return _WINDOWS.sub(r"\1", _PATH.sub(r"\1", text))
