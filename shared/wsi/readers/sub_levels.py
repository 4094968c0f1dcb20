"""Levels that a TIFF keeps as sub-IFDs of its first page, as OME-TIFF does: cuCIM and OpenSlide know of none of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..tiff.layout import TiffLayout, TiffPageLayout, sub_level_pages
from ..tiff.tile_regions import TileRegions
from ..tiff.tiles import JPEG, TileCheck, decode_stream, has_hole
from .reader import GLASS, LevelReader


def with_sub_levels(reader: LevelReader, path: Path, layout: TiffLayout) -> LevelReader:
    """A library's reader, with the levels that it does not know of after its own where they can be read.

    These are tiled, of 8-bit RGB, and smaller than level 0, which must be the page that they belong to.
    """
    sizes = reader.level_sizes_px
    first = layout.pages[0].size_px
    usable = [page for page in layout.sub_levels if page.is_tiled and page.is_uint8_rgb and page.size_px not in sizes]
    usable = [page for page in usable if page.size_px[0] <= first[0] and page.size_px[1] <= first[1]]
    return SubLevelReader(reader, path, usable) if usable and sizes[0] == first else reader


class SubLevelReader:
    """Reads the levels of another reader through it, and further ones tile by tile through tifffile.

    Args:
        reader: of the other levels.
        path: of the TIFF.
        pages: of the further levels.
    """

    def __init__(self, reader: LevelReader, path: Path, pages: list[TiffPageLayout]) -> None:
        self._reader, self._pages = reader, pages
        self._num_others = len(reader.level_sizes_px)
        self.level_sizes_px = (*reader.level_sizes_px, *(page.size_px for page in pages))
        self._check = TileCheck(path)
        self._regions = TileRegions(path, self._decode, GLASS)
        self._tiff = tifffile.TiffFile(path)
        self._decoders = {(page.imagewidth, page.imagelength): page for page in reversed(sub_level_pages(self._tiff))}
        for page in self._decoders.values():  # read now, in one thread
            _ = page.jpegtables, page.jpegheader, page.decode

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        if level < self._num_others:
            return self._reader.read(level, origins, size_px, num_workers)
        page = self._pages[level - self._num_others]
        if page.compression == JPEG:  # the decoder of tifffile reads on after a hole
            self._check.check(page, origins, size_px)
        return self._regions.read(page, origins, size_px, num_workers)

    def _decode(self, page: TiffPageLayout, index: int, stream: bytes) -> NDArray[np.generic]:
        if has_hole(page, stream):
            raise RuntimeError("it contains a block of zeros")
        tile = decode_stream(self._decoders[page.size_px], index, stream)
        if tile is None:
            raise RuntimeError("it is empty")
        return tile

    def properties(self) -> Mapping[str, str]:
        return self._reader.properties()

    def close(self) -> None:
        self._reader.close()
        self._check.close()
        self._regions.close()
        self._tiff.close()
