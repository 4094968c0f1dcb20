"""The endings of image files: which are read, and which slide formats are known but cannot be read."""

from __future__ import annotations

from pathlib import Path

from .readers import order

# Slides that no reader here reads: somebody expects a map of them.
UNREADABLE_FORMATS = {
    ".afi": "Aperio fluorescence",
    ".ims": "Imaris",
    ".isyntax": "Philips iSyntax",
    ".i2syntax": "Philips iSyntax 2",
    ".kfb": "KFBio",
    ".lif": "Leica image file",
    ".mds": "Motic",
    ".mdsx": "Motic",
    ".nd2": "Nikon",
    ".ndpis": "Hamamatsu fluorescence set",
    ".sdpc": "Shengqiang",
    ".tmap": "UNIC",
    ".tron": "TissueGnostics",
    ".vsf": "PreciPoint",
    ".vsi": "Olympus",
    ".zarr": "OME-Zarr",
    ".zvi": "Zeiss ZVI",
}


def image_suffixes() -> frozenset[str]:
    """Endings of the files that are read, in small letters: everything that is looked for in a folder."""
    return frozenset[str]().union(*(reader.suffixes for reader in order.READERS))


def is_plain_picture(path: str | Path) -> bool:
    """Whether a file's ending is one of pictures that carry no pixel size that anyone could trust.

    >>> [is_plain_picture(name) for name in ("a.PNG", "b.jpeg", "c.tif")]
    [True, True, False]
    """
    return any(Path(path).suffix.lower() in reader.plain_suffixes for reader in order.READERS)


def unreadable_format(path: Path) -> str | None:
    """Name of a slide format that is known and that no reader here reads, by a file's ending; None for all others."""
    suffix = path.suffix.lower()
    return None if suffix in image_suffixes() else UNREADABLE_FORMATS.get(suffix)


def is_image(path: Path) -> bool:
    """Whether a file's ending says that it is a slide or a picture, one that cannot be read included.

    >>> [is_image(Path(name)) for name in ("a.SVS", "b.ome.btf", "c.vsi", "notes.txt")]
    [True, True, True, False]
    """
    return path.suffix.lower() in image_suffixes() or unreadable_format(path) is not None


def known_suffixes() -> str:
    """The endings that are read, for messages."""
    return ", ".join(sorted(image_suffixes()))
