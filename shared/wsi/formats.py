"""The endings of image files: which are read, and which slide formats are known but cannot be read."""

from __future__ import annotations

from pathlib import Path

# Pictures that carry no pixel size that anyone could trust.
PLAIN_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
# Tiles or slides, whoever wrote them; the last three are BigTIFF.
TIFF_SUFFIXES = frozenset({".tif", ".tiff", ".btf", ".tf2", ".tf8"})
# Formats of a scanner's vendor, and DICOM. What else such a file holds (a label, a preview) is not the slide.
SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi", ".qptiff"})
# Everything that is looked for in a folder.
IMAGE_SUFFIXES = PLAIN_SUFFIXES | TIFF_SUFFIXES | SLIDE_SUFFIXES
# Slides all the same: somebody expects a map of them.
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


def is_image(path: Path) -> bool:
    """Whether a file's ending says that it is a slide or a picture, one that cannot be read included.

    >>> [is_image(Path(name)) for name in ("a.SVS", "b.ome.btf", "c.vsi", "notes.txt")]
    [True, True, True, False]
    """
    return path.suffix.lower() in IMAGE_SUFFIXES or path.suffix.lower() in UNREADABLE_FORMATS


def known_suffixes() -> str:
    """The endings that are read, for messages."""
    return ", ".join(sorted(IMAGE_SUFFIXES))
