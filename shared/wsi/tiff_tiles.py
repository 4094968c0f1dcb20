"""Single tiles of a TIFF: decoded by tifffile, which is strict, and checked for damage before another library reads them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from .tiff_layout import TiffPageLayout, first_pages

_UNCOMPRESSED = 1
_JPEG = 7
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
# Within a scan 0xFF is followed by 0 or by a restart marker; the next marker ends it.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def decode_tile(tiff: tifffile.TiffFile, page: tifffile.TiffPage, index: int) -> NDArray[np.generic] | None:
    """One tile ``(H, W, C)``, cut at the image's border; None where the file leaves it out.

    Raises:
        Exception: whatever the decoder says of a damaged tile.
    """
    if page.databytecounts[index] == 0:
        return None
    tiff.filehandle.seek(page.dataoffsets[index])
    encoded = tiff.filehandle.read(page.databytecounts[index])
    tile, _, shape = page.decode(encoded, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
    return None if tile is None else tile.reshape(tile.shape[-3:])[: shape[1], : shape[2]]


class TileCheck:
    """Finds damaged tiles before cuCIM meets them: it would return black or the pixels of *another* tile, or end the process.

    Each tile is looked at once, when a region first touches it. The bytes of a JPEG tile are checked for a complete, gapless
    stream, at a few per cent of the cost of decoding. Tiles that fail, and all of other compressions, are decoded by tifffile,
    JPEG also by OpenSlide where it knows the file: it takes libjpeg's warnings for the errors that they are. Single flipped bits
    in a JPEG tile go unseen.

    Args:
        path: of the TIFF.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        self._openslide: Any = None
        self._sound: dict[tuple[int, int], NDArray[np.bool_]] = {}

    def check(self, page: TiffPageLayout, origins: NDArray[np.int64], size_px: tuple[int, int]) -> None:
        """Check the tiles under regions of (width, height) `size_px` at `origins` ``(n, 2)``, (x, y) in pixels of the page.

        Raises:
            RuntimeError: naming the first tile that is damaged.
        """
        if page.compression == _UNCOMPRESSED:
            return
        sound = self._sound.get(page.size_px)
        if sound is None:
            sound = self._sound[page.size_px] = page.tile_spans[:, 1] == 0
        columns, rows = (_touched(origins[:, axis], size_px[axis], page.tile_size_px[axis]) for axis in (0, 1))
        indices = rows[:, :, None] * -(-page.size_px[0] // page.tile_size_px[0]) + columns[:, None, :]
        for index in np.unique(indices[~sound[indices]]).tolist():
            if not self._is_whole(page, index):
                self._decode(page, index)
            sound[index] = True

    def _is_whole(self, page: TiffPageLayout, index: int) -> bool:
        if page.compression != _JPEG:
            return False
        offset, length = page.tile_spans[index].tolist()
        stream = os.pread(self._file, length, offset)
        # Decoders take a hole for pixels. Three channels of 8 x 8 blocks, at two bits the least, are the longest run of zeros.
        if bytes(3 * page.tile_size_px[0] * page.tile_size_px[1] // 256 + 1) in stream:
            raise RuntimeError(f"tile {index} is damaged: there is a hole of zeros in it")
        return _is_whole_jpeg(stream)

    def _decode(self, page: TiffPageLayout, index: int) -> None:
        try:
            with tifffile.TiffFile(self._path) as tiff:
                sizes = {(found.imagewidth, found.imagelength): found for found in reversed(first_pages(tiff)) if found.is_tiled}
                decode_tile(tiff, sizes[page.size_px], index)
            if page.compression == _JPEG:
                self._read_through_openslide(page, index)
        except Exception as error:  # each codec has errors of its own
            raise RuntimeError(f"tile {index} is damaged: {error}") from error

    def _read_through_openslide(self, page: TiffPageLayout, index: int) -> None:
        try:
            import openslide
        except (ImportError, OSError):
            return
        if openslide.OpenSlide.detect_format(str(self._path)) is None:
            return
        slide = self._openslide = self._openslide or openslide.OpenSlide(str(self._path))
        level = slide.level_dimensions.index(page.size_px)
        row, column = divmod(index, -(-page.size_px[0] // page.tile_size_px[0]))
        # Any pixel has the whole tile decoded; one well inside of it, as OpenSlide interpolates.
        corner = (column * page.tile_size_px[0], row * page.tile_size_px[1])
        x, y = (
            (start + min(tile, side - start) / 2) * slide.level_downsamples[level]
            for start, tile, side in zip(corner, page.tile_size_px, page.size_px, strict=True)
        )
        try:
            slide.read_region((int(x), int(y)), level, (1, 1))
        except openslide.OpenSlideError:
            self._openslide = None  # it refuses every read after an error
            raise

    def close(self) -> None:
        os.close(self._file)


def _touched(starts: NDArray[np.int64], length: int, tile_px: int) -> NDArray[np.int64]:
    """Along one side, the tiles that each region touches ``(n, k)``; regions with fewer name their last one again."""
    first, last = starts // tile_px, (starts + length - 1) // tile_px
    return np.minimum(first[:, None] + np.arange(int((last - first).max()) + 1), last[:, None])


def _is_whole_jpeg(stream: bytes) -> bool:
    """Whether a baseline JPEG stream is complete from its first to its last marker."""
    if not stream.startswith(_START_OF_IMAGE):
        return False
    position, end = 2, len(stream)
    while position + 4 <= end and stream[position] == 0xFF and stream[position + 1] != _START_OF_SCAN:
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    if position + 4 > end or stream[position] != 0xFF:
        return False
    scan_end = _SCAN_END.search(stream, position + 2)
    return scan_end is not None and stream.startswith(_END_OF_IMAGE, scan_end.start())
