"""The formats of a figure, by the ending of its file."""

from __future__ import annotations

from pathlib import Path

PICTURE_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".pdf": "pdf", ".svg": "svg"}


def picture_format(path: str | Path) -> str:
    """What Matplotlib calls the format of a figure at this path.

    Raises:
        ValueError: for another ending than those of `PICTURE_FORMATS`.

    >>> picture_format("Figure.JPG")
    'jpeg'
    """
    ending = Path(path).suffix.lower()
    if ending not in PICTURE_FORMATS:
        raise ValueError(f"{path}: expected one of the endings {', '.join(PICTURE_FORMATS)}, found {ending or 'none'!r}")
    return PICTURE_FORMATS[ending]
