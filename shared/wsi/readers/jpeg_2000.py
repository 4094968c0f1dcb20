"""Levels of JPEG 2000 tiles, which are checked and decoded in one go: decoding them costs ten times what it costs with JPEG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..tiff.layout import TiffPageLayout
from ..tiff.tile_regions import TileRegions
from ..tiff.tiles import channel_steps, has_hole, touched_tiles
from .cucim_support import PLAIN_TILE_VENDORS
from .reader import GLASS, LevelReader, SlideFile

# Aperio's compressions, and what their channels are, whatever the tags say.
_YCBCR, _RGB = 33003, 33005
_KEPT_BYTES = 2**25  # as many as OpenSlide keeps of a slide


def with_jpeg_2000(reader: LevelReader, file: SlideFile) -> LevelReader:
    """A library's reader; around it, where levels are of JPEG 2000, one that decodes their tiles itself.

    The library would be given only what has been decoded before, to see whether it is whole.
    """
    if file.vendor not in PLAIN_TILE_VENDORS:
        return reader
    pages = [file.page_of_size(size) for size in reader.level_sizes_px]
    usable = [page if page is not None and _is_usable(page, file.path) else None for page in pages]
    return Jpeg2000Reader(reader, file.path, usable) if any(usable) else reader


def _is_usable(page: TiffPageLayout, path: Path) -> bool:
    if page.compression not in (_YCBCR, _RGB) or not page.is_uint8_rgb:
        return False
    spans = page.tile_spans[page.tile_spans[:, 1] > 0]
    if not len(spans):
        return False
    with path.open("rb") as file:
        file.seek(spans[0, 0])
        steps = channel_steps(file.read(spans[0, 1]))
    return steps == {1} or (page.compression == _YCBCR and bool(steps))


class Jpeg2000Reader:
    """Reads regions of another reader's levels from their tiles, and leaves to it the others and those where a tile was left out.

    Args:
        reader: of the same file.
        path: of the TIFF.
        pages: of the reader's levels, None for those that are left to it.
    """

    def __init__(self, reader: LevelReader, path: Path, pages: list[TiffPageLayout | None]) -> None:
        self._reader, self._pages = reader, pages
        self.level_sizes_px = reader.level_sizes_px
        self._regions = TileRegions(path, decode_jpeg_2000, GLASS, _KEPT_BYTES)

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        page = self._pages[level]
        if page is None or page.empty_tiles.ravel()[touched_tiles(page, origins, size_px)].any():
            return self._reader.read(level, origins, size_px, num_workers)
        return self._regions.read(page, origins, size_px, num_workers)

    def properties(self) -> Mapping[str, str]:
        return self._reader.properties()

    def close(self) -> None:
        self._reader.close()
        self._regions.close()


def decode_jpeg_2000(page: TiffPageLayout, index: int, stream: bytes) -> NDArray[np.uint8]:
    """A tile's pixels, RGB ``(H, W, 3)``.

    Raises:
        Exception: of a damaged tile, saying what is wrong with it.
    """
    if has_hole(page, stream):
        raise RuntimeError("it contains a block of zeros")
    tile: NDArray[np.uint8] = imagecodecs.jpeg2k_decode(stream)
    width, height = page.tile_size_px
    if tile.shape != (height, width, 3) or tile.dtype != np.uint8:
        raise RuntimeError(f"expected {height} x {width} pixels of three 8-bit channels, found {tile.shape}, {tile.dtype}")
    # Of channels that are sparser than pixels the decoder makes RGB itself.
    if page.compression == _YCBCR and channel_steps(stream) == {1}:
        return np.asarray(Image.frombuffer("YCbCr", (width, height), tile, "raw", "YCbCr", 0, 1).convert("RGB"))
    return tile
