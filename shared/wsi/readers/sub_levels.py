"""Levels that a TIFF keeps as sub-IFDs of its first page, as OME-TIFF does: cuCIM and OpenSlide know of none of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..tiff.layout import TiffLayout, TiffPageLayout, sub_level_pages
from ..tiff.tiles import TileCheck, decode_stream
from .reader import GLASS, LevelReader


def with_sub_levels(reader: LevelReader, path: Path, layout: TiffLayout) -> LevelReader:
    """A library's reader, with the levels that it does not know of behind its own where they can be read.

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
        self._file = os.open(path, os.O_RDONLY)
        self._tiff = tifffile.TiffFile(path)
        self._decoders = {(page.imagewidth, page.imagelength): page for page in reversed(sub_level_pages(self._tiff))}
        for page in self._decoders.values():  # read now, in one thread
            _ = page.jpegtables, page.jpegheader, page.decode

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        if level < self._num_others:
            return self._reader.read(level, origins, size_px, num_workers)
        page = self._pages[level - self._num_others]
        self._check.check(page, origins, size_px)
        regions = np.full((len(origins), size_px[1], size_px[0], 3), GLASS, dtype=np.uint8)
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            list(pool.map(lambda one: self._fill(one[0], page, one[1]), zip(regions, origins.tolist(), strict=True)))
        return regions

    def _fill(self, region: NDArray[np.uint8], page: TiffPageLayout, origin: list[int]) -> None:
        """Copy what a region ``(H, W, 3)`` at (x, y) `origin` has of each tile that it touches; glass where one was left out."""
        (left, top), (width, height) = origin, page.tile_size_px
        bottom, right = top + region.shape[0], left + region.shape[1]
        for row in range(top // height, -(-bottom // height)):
            for column in range(left // width, -(-right // width)):
                tile = self._tile(page, row * -(-page.size_px[0] // width) + column)
                if tile is not None:
                    y, x = row * height, column * width
                    part = tile[max(0, top - y) : bottom - y, max(0, left - x) : right - x]
                    y, x = max(y, top) - top, max(x, left) - left
                    region[y : y + part.shape[0], x : x + part.shape[1]] = part

    def _tile(self, page: TiffPageLayout, index: int) -> NDArray[np.generic] | None:
        offset, length = page.tile_spans[index].tolist()
        if not length:
            return None
        try:
            return decode_stream(self._decoders[page.size_px], index, os.pread(self._file, length, offset))
        except Exception as error:  # each codec has errors of its own
            raise RuntimeError(f"tile {index} is damaged: {error}") from error

    def properties(self) -> Mapping[str, str]:
        return self._reader.properties()

    def close(self) -> None:
        self._reader.close()
        self._check.close()
        os.close(self._file)
        self._tiff.close()
