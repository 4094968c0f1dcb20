"""Single tiles of a TIFF: decoded by tifffile, which is strict, and checked for damage before another library reads them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from .layout import TiffPageLayout, first_pages

_UNCOMPRESSED = 1
JPEG = 7
_JPEG_2000 = (33003, 33004, 33005, 34712)
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
# Within a scan 0xFF is followed by 0 or by a restart marker; the next marker ends it.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7]")
# Of a JPEG 2000 codestream: its first bytes, the segments of the image's size and of the coding style.
_START_OF_CODESTREAM, _SIZE, _CODING_STYLE = b"\xff\x4f", b"\xff\x51", b"\xff\x52"
# Zeros in a row that arithmetic coding may leave next to those of empty packets.
_CODED_ZEROS = 32


def decode_tile(tiff: tifffile.TiffFile, page: tifffile.TiffPage, index: int) -> NDArray[np.generic] | None:
    """One tile ``(H, W, C)``, cut at the image's border; None where the file leaves it out.

    Raises:
        Exception: whatever the decoder says of a damaged tile.
    """
    if page.databytecounts[index] == 0:
        return None
    tiff.filehandle.seek(page.dataoffsets[index])
    return decode_stream(page, index, tiff.filehandle.read(page.databytecounts[index]))


def decode_stream(page: tifffile.TiffPage, index: int, stream: bytes) -> NDArray[np.generic] | None:
    """`decode_tile` of the bytes of a tile."""
    tile, _, shape = page.decode(stream, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
    return None if tile is None else tile.reshape(tile.shape[-3:])[: shape[1], : shape[2]]


class TileCheck:
    """Finds damaged tiles before another library meets them.

    cuCIM would return black or the pixels of *another* tile, or end the process; OpenSlide reads on after a hole in a JPEG or
    deflate tile. Each tile is looked at once, when a region first touches it. The bytes of a JPEG tile are checked for a
    complete, gapless stream, at a few per cent of the cost of decoding. Tiles that fail, and all of other compressions, are
    decoded by tifffile, JPEG also by OpenSlide where it knows the file: it takes libjpeg's warnings for the errors that they
    are. Of JPEG and JPEG 2000, whose decoders take anything for pixels, more zeros in a row than a sound tile can hold are
    damage too. Single flipped bits in such a tile go unseen.

    Args:
        path: of the TIFF.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        self._openslide: Any = None
        self._tiff: tifffile.TiffFile | None = None
        self._decoders: dict[tuple[int, int], tifffile.TiffPage] = {}
        self._sound: dict[tuple[int, int], NDArray[np.bool_]] = {}

    def check(self, page: TiffPageLayout, origins: NDArray[np.int64], size_px: tuple[int, int]) -> None:
        """Check the tiles under regions of (width, height) `size_px` at `origins` ``(n, 2)``, (x, y) in pixels of the page.

        Raises:
            RuntimeError: naming the first tile that is damaged.
        """
        if page.compression == _UNCOMPRESSED or not len(page.tile_spans):
            return
        sound = self._sound.get(page.size_px)
        if sound is None:
            sound = self._sound[page.size_px] = page.tile_spans[:, 1] == 0
        indices = touched_tiles(page, origins, size_px)
        for index in np.unique(indices[~sound[indices]]).tolist():
            if not self._is_whole(page, index):
                self._decode(page, index)
            sound[index] = True

    def _stream(self, page: TiffPageLayout, index: int) -> bytes:
        offset, length = page.tile_spans[index].tolist()
        return os.pread(self._file, length, offset)

    def _is_whole(self, page: TiffPageLayout, index: int) -> bool:
        stream = self._stream(page, index)
        if has_hole(page, stream):
            raise RuntimeError(f"tile {index} is damaged: it contains a block of zeros")
        return page.compression == JPEG and _is_whole_jpeg(stream)

    def _decode(self, page: TiffPageLayout, index: int) -> None:
        try:
            if page.compression in _JPEG_2000:  # tifffile refuses those whose tags speak of sparse channels
                imagecodecs.jpeg2k_decode(self._stream(page, index))
                return
            if self._tiff is None:
                self._tiff = tifffile.TiffFile(self._path)
                tiled = [found for found in first_pages(self._tiff) if found.is_tiled]
                self._decoders = {(found.imagewidth, found.imagelength): found for found in reversed(tiled)}
            decode_stream(self._decoders[page.size_px], index, self._stream(page, index))
            if page.compression == JPEG:
                self._read_through_openslide(page, index)
        except Exception as error:  # each codec has its own errors
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
        if self._tiff is not None:
            self._tiff.close()


def touched_tiles(page: TiffPageLayout, origins: NDArray[np.int64], size_px: tuple[int, int]) -> NDArray[np.int64]:
    """Which tiles regions of (width, height) `size_px` at `origins` ``(n, 2)``, (x, y) in pixels of the page, touch.

    Returns:
        ``(n, rows, columns)``; where a region touches fewer, it names some twice.
    """
    columns, rows = (_touched(origins[:, axis], size_px[axis], page.tile_size_px[axis]) for axis in (0, 1))
    return rows[:, :, None] * -(-page.size_px[0] // page.tile_size_px[0]) + columns[:, None, :]


def _touched(starts: NDArray[np.int64], length: int, tile_px: int) -> NDArray[np.int64]:
    """Along one side, the tiles that each region touches ``(n, k)``; regions with fewer name their last one again."""
    first, last = starts // tile_px, (starts + length - 1) // tile_px
    return np.minimum(first[:, None] + np.arange(int((last - first).max()) + 1), last[:, None])


def has_hole(page: TiffPageLayout, stream: bytes) -> bool:
    """Whether more zeros follow each other in a JPEG or JPEG 2000 tile than its coding explains: a part of it was lost."""
    if page.compression == JPEG:
        # Three channels of 8 x 8 blocks, at two bits the least, are the longest run of zeros.
        longest = 3 * page.tile_size_px[0] * page.tile_size_px[1] // 256
    elif page.compression in _JPEG_2000:
        longest = _num_packets(page.tile_size_px, stream) + _CODED_ZEROS
    else:
        return False
    return bytes(longest + 1) in stream


def _num_packets(tile_size_px: tuple[int, int], stream: bytes) -> int:
    """Packets of a JPEG 2000 codestream, at most: an empty one is a zero byte (ISO/IEC 15444-1, A.5.1, A.6.1 and B.9)."""
    size, style = stream.find(_SIZE), stream.find(_CODING_STYLE)
    if size < 0 or style < 0 or len(stream) < style + 14:
        return 0  # no header: damage that the decoder tells
    num_channels = int.from_bytes(stream[size + 38 : size + 40], "big")
    num_layers = int.from_bytes(stream[style + 6 : style + 8], "big")
    num_resolutions = stream[style + 9] + 1
    precincts = num_resolutions
    if stream[style + 4] & 1:
        sizes = stream[style + 14 : style + 14 + num_resolutions]
        precincts = sum(((tile_size_px[0] >> (s & 15)) + 1) * ((tile_size_px[1] >> (s >> 4)) + 1) for s in sizes)
    return num_channels * num_layers * precincts


def channel_steps(stream: bytes) -> set[int]:
    """Pixels from one sample to the next, of all channels and both axes of a bare JPEG 2000 codestream (ISO/IEC 15444-1, A.5.1).

    Returns:
        {1} where every pixel has a sample of every channel; nothing for what is no bare codestream.
    """
    size = stream.find(_SIZE)
    if not stream.startswith(_START_OF_CODESTREAM) or size < 0:
        return set()
    num_channels = int.from_bytes(stream[size + 38 : size + 40], "big")
    channels = stream[size + 40 : size + 40 + 3 * num_channels]
    return set(channels[1::3] + channels[2::3])


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
