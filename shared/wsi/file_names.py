"""Names of files, which are the same in either of the two ways in which Unicode writes letters such as ä, é and å.

A Mac writes many of them as a letter and its accent (NFD), keyboards and other systems as one letter (NFC). Names are compared
in NFC; the files themselves keep their names.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path


def comparable(name: str) -> str:
    """A name in the form in which it is compared with others.

    >>> comparable("pra\\u0308parat") == comparable("pr\\u00e4parat") == "pr\\u00e4parat"
    True
    """
    return unicodedata.normalize("NFC", name)


def existing_file(path: str | Path) -> Path:
    """The path itself, unless it is not there and what is there has the same name written in the other way.

    Folders on the way to it count too. Names in ASCII, which have only one form, cost nothing.
    """
    path = Path(path)
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        found = found / part if os.path.lexists(found / part) else _sibling(found, part)
        if not os.path.lexists(found):
            return path
    return found


def _sibling(folder: Path, name: str) -> Path:
    """The file or folder of this name, however it is written; the given one where there is none."""
    try:
        names = _names_in(str(folder), folder.stat().st_mtime_ns)
    except OSError:
        return folder / name
    return folder / names.get(comparable(name), name)


@functools.lru_cache(maxsize=16)
def _names_in(folder: str, modified_ns: int) -> dict[str, str]:
    """The names in a folder that are not in ASCII, by their comparable form."""
    names = sorted((path.name for path in Path(folder).iterdir()), reverse=True)
    return {comparable(name): name for name in names if not name.isascii()}
