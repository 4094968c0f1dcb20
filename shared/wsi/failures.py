"""A file that could not be read: is it damaged, or is it sound and stored in a way that the library does not know?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from .readers.reader import LevelReader, SlideFile
from .tiff.images import compression_name
from .tiff.layout import TiffLayout, TiffPageLayout, first_pages

# No compression, LZW, JPEG, deflate, PackBits: only damage keeps these from being read.
_READ_EVERYWHERE = (1, 5, 6, 7, 8, 32773, 32946)
_SAVE = "save it with JPEG, LZW or deflate"


def remedy(path: Path, layout: TiffLayout | None) -> str:
    """What to do about a file that no library opens.

    Args:
        path: the file.
        layout: of a TIFF, None for other files.
    """
    hint = None if layout is None else _unsupported(path, layout.pages[0], whole=False)
    return hint[0].upper() + hint[1:] if hint else "Check that the file is complete, or convert it to a tiled pyramidal TIFF"


def read_remedy(file: SlideFile, reader: LevelReader | None, level: int, whole: bool) -> str:
    """What to do about a level that cannot be read.

    Args:
        file: that was read.
        reader: that failed; None where the file could not be opened again.
        level: that was read.
        whole: whether the reader decodes the file whole, and so stumbles over damage anywhere.
    """
    hint = None
    if file.layout is not None and reader is not None:
        size_px = reader.level_sizes_px[level]
        page = next((page for page in file.layout.pages if page.size_px == size_px), None)
        if page is not None and (whole or not _reads_first_pixel(reader, level)):
            hint = _unsupported(file.path, page, whole)
    return hint or "is the file complete?"


def _unsupported(path: Path, page: TiffPageLayout, whole: bool) -> str | None:
    """The problem if a page's compression is to blame: tifffile, which supports most, decodes what the library did not."""
    if page.compression in _READ_EVERYWHERE or not _is_sound(path, page.size_px, whole):
        return None
    return f"the file is sound, but its compression {compression_name(page.compression)} is not supported: {_SAVE}"


def _reads_first_pixel(reader: LevelReader, level: int) -> bool:
    try:
        reader.read(level, np.zeros((1, 2), dtype=np.int64), (1, 1), num_workers=1)
    except (RuntimeError, OSError):
        return False
    return True


def _is_sound(path: Path, size_px: tuple[int, int], whole: bool) -> bool:
    """Whether tifffile decodes the picture of this size, or its first tile or strip."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = next(page for page in first_pages(tiff) if (page.imagewidth, page.imagelength) == size_px)
            decoded = page.asarray(maxworkers=1) if whole else next(page.segments(maxworkers=1))[0]
    except Exception:  # each codec has its own errors
        return False
    return decoded is not None
