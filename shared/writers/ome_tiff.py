"""Maps of any size as a pyramidal OME-TIFF, a channel a map, read and written a strip at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile

from .atomic import atomic_path
from .palette import Colour

TILE_SIZE_PX = 512
COMPRESSION_BUFFER_BYTES = 16 * 2**20
CLASSIC_TIFF_BYTES = 3 * 2**30  # a classic TIFF ends at 4 GiB; the pyramid adds a third to the map


class RowSource(Protocol):
    """A uint8 image of ``shape`` (H, W) that is read by rows, from wherever it is kept."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` (exclusive, at most H), ``(stop - start, W)`` uint8."""
        ...


def write_ome_tiff(path: str | Path, source: RowSource, mpp: float, channel: str = "Tumour probability") -> None:
    """Like `write_ome_tiff_channels`, for a single map, whose axes are (Y, X)."""
    _write(path, [source], mpp, {"axes": "YX", "Channel": {"Name": [channel]}})


def write_ome_tiff_channels(
    path: str | Path, sources: Mapping[str, RowSource], mpp: float, colours: Sequence[Colour] | None = None
) -> None:
    """Write maps of one size as the channels of a tiled, losslessly compressed OME-TIFF whose lower levels are SubIFDs.

    Every level halves the one before (mean of the level-0 pixels) until it fits into one tile. Memory is a few strips
    of `TILE_SIZE_PX` rows, whatever the height.

    Args:
        path: final name, ``*.ome.tif``.
        sources: name that viewers show -> map, ``(H, W)`` uint8; axes are (C, Y, X) in this order.
        mpp: micrometres per pixel *of the map*.
        colours: of the channels, as viewers show them; None leaves them to the viewer.

    Raises:
        ValueError: if there is no map, or they differ in size.
    """
    shapes = {tuple(source.shape) for source in sources.values()}
    if len(shapes) != 1:
        raise ValueError(f"{path}: all channels must have the same size, got {sorted(shapes) or 'no channel'}")
    channel: dict[str, Any] = {"Name": list(sources)}
    if colours is not None:
        channel["Color"] = [signed_rgba(colour) for colour in colours]
    _write(path, list(sources.values()), mpp, {"axes": "CYX", "Channel": channel})


def signed_rgba(colour: Colour) -> int:
    """OME's colour: red, green, blue and opacity as the bytes of a signed number."""
    return int.from_bytes(bytes((*colour, 255)), "big", signed=True)


def _write(path: str | Path, sources: Sequence[RowSource], mpp: float, metadata: dict[str, Any]) -> None:
    height, width = sources[0].shape
    factors = level_factors((height, width))
    sizes = {f"PhysicalSize{axis}{suffix}": value for axis in "XY" for suffix, value in (("", mpp), ("Unit", "µm"))}
    has_channels = metadata["axes"] == "CYX"
    bigtiff = len(sources) * height * width > CLASSIC_TIFF_BYTES
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, ome=True, bigtiff=bigtiff) as tiff:
        for factor in factors:
            is_full = factor == 1
            shape = (-(-height // factor), -(-width // factor))
            tiff.write(
                (tile for source in sources for tile in _tiles(source, factor)),
                shape=(len(sources), *shape) if has_channels else shape,
                dtype=np.uint8,
                photometric="minisblack",
                tile=(TILE_SIZE_PX, TILE_SIZE_PX),
                compression="zlib",
                predictor=True,
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
                subifds=len(factors) - 1 if is_full else None,
                subfiletype=0 if is_full else 1,
                metadata=metadata | sizes if is_full else None,
                buffersize=COMPRESSION_BUFFER_BYTES,
            )


def level_factors(shape: tuple[int, int]) -> list[int]:
    """Factors by which each level of a pyramid is smaller than the map, (H, W): halved until it fits into one tile.

    >>> level_factors((2000, 700))
    [1, 2, 4]
    """
    factors = [1]
    while max(shape) > factors[-1] * TILE_SIZE_PX:
        factors.append(2 * factors[-1])
    return factors


def reduce_rows(rows: np.ndarray, factor: int) -> np.ndarray:
    """Mean of ``factor x factor`` blocks of ``(H, W)``, as float32 ``(ceil(H / factor), ceil(W / factor))``.

    Blocks that reach over the border average the pixels that exist.

    >>> reduce_rows(np.array([[0, 4, 6], [2, 6, 8]], np.uint8), 2)
    array([[3., 7.]], dtype=float32)
    """
    height, width = (-(-size // factor) for size in rows.shape)
    if not rows.any():
        # Most of a slide is glass.
        return np.zeros((height, width), np.float32)
    column_sums = np.zeros((height, rows.shape[1]), np.uint32)
    sums = np.zeros((height, width), np.uint32)
    # Adding slices is some 20 times as fast as np.add.reduceat.
    for offset in range(min(factor, rows.shape[0])):
        part = rows[offset::factor]
        column_sums[: len(part)] += part
    for offset in range(min(factor, rows.shape[1])):
        part = column_sums[:, offset::factor]
        sums[:, : part.shape[1]] += part
    counts = [np.minimum(factor, size - np.arange(0, size, factor)) for size in rows.shape]
    return (sums / np.outer(*counts)).astype(np.float32)


def reduced_strips(source: RowSource, factor: int, read_height: int = TILE_SIZE_PX) -> Iterator[np.ndarray]:
    """The map reduced by `factor`, float32, strip by strip from the top, about `read_height` map rows at a time."""
    height = source.shape[0]
    step = max(1, read_height // factor) * factor
    for start in range(0, height, step):
        yield reduce_rows(source.read_rows(start, min(start + step, height)), factor)


def _tiles(source: RowSource, factor: int) -> Iterator[np.ndarray]:
    """The level's tiles, row by row, each ``(TILE_SIZE_PX, TILE_SIZE_PX)`` uint8, 0 beyond the border."""
    for band in level_bands(source, factor):
        padding = [(0, -size % TILE_SIZE_PX) for size in band.shape]
        padded = np.pad(band, padding)
        for x in range(0, padded.shape[1], TILE_SIZE_PX):
            yield np.ascontiguousarray(padded[:, x : x + TILE_SIZE_PX])


def level_bands(source: RowSource, factor: int) -> Iterator[np.ndarray]:
    """The level as bands of `TILE_SIZE_PX` rows, the last one as high as is left."""
    height = source.shape[0]
    if factor == 1:
        for start in range(0, height, TILE_SIZE_PX):
            yield source.read_rows(start, min(start + TILE_SIZE_PX, height))
        return
    waiting: list[np.ndarray] = []
    # Factors are powers of two, so whole strips fill a band exactly.
    for strip in reduced_strips(source, factor):
        waiting.append(np.rint(strip).astype(np.uint8))
        if sum(len(rows) for rows in waiting) >= TILE_SIZE_PX:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)
