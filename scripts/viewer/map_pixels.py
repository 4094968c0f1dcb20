"""Windows of a map at any scale, read from its file."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from shared.wsi.tiff.tiles import decode_tile

_KEPT_TILES = 256  # of 512 x 512 bytes: 64 MB


class MapPixels:
    """A map that `SlideMapper` wrote, read in windows. The tiles that were decoded last are kept.

    Safe to use from several threads.

    Args:
        path: path of the ``.ome.tif``.
        channel: index of the class in a multi-class map.

    Raises:
        ValueError: if it cannot be read.
    """

    def __init__(self, path: Path, channel: int = 0) -> None:
        try:
            self._tiff = tifffile.TiffFile(path)
            page = self._tiff.pages[channel].aspage()
        except (OSError, tifffile.TiffFileError, IndexError) as error:
            raise ValueError(f"the map {path} cannot be read ({error})") from error
        # A large map has reduced copies, which are sub-images of its page.
        self._levels = [page, *(level.aspage() for level in (page.pages or ()))]
        # Not the ratio of their sides, which are rounded up to whole pixels: it is far off where a side has few of them.
        self._factors = [2**level for level in range(len(self._levels))]
        self._path = path
        self._kept: OrderedDict[tuple[int, int], NDArray[np.uint8] | None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self._levels[0].imagelength, self._levels[0].imagewidth

    @functools.cached_property
    def filled_box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) around the tiles that are not 0 everywhere; the first pixel if there are none."""
        page = self._levels[0]
        rows, columns = np.divmod(self._filled_tiles(), -(-page.imagewidth // page.tilewidth))
        if not len(rows):
            return 0, 0, 1, 1
        right, bottom = (int(columns.max()) + 1) * page.tilewidth, (int(rows.max()) + 1) * page.tilelength
        left, top = int(columns.min()) * page.tilewidth, int(rows.min()) * page.tilelength
        return left, top, min(right, page.imagewidth), min(bottom, page.imagelength)

    def _filled_tiles(self) -> NDArray[np.int64]:
        """Indices of the tiles that are not 0 everywhere.

        All-zero tiles have identical bytes, and the fewest, so one is decoded and the others are only compared with it.
        """
        page = self._levels[0]
        sizes = np.asarray(page.databytecounts)
        stored = np.flatnonzero(sizes)
        smallest = stored[sizes[stored] == sizes[stored].min()] if len(stored) else stored
        with self._lock:
            encoded = {}
            for index in smallest.tolist():
                self._tiff.filehandle.seek(page.dataoffsets[index])
                encoded[index] = self._tiff.filehandle.read(int(sizes[index]))
        contents = {content: index for index, content in encoded.items()}
        clear = {content for content, index in contents.items() if not self._has_values(index)}
        return np.array([index for index in stored.tolist() if encoded.get(index) not in clear], np.int64)

    def _has_values(self, index: int) -> bool:
        tile = self._tile(0, index)
        return tile is not None and bool(tile.any())

    def read(self, xy: tuple[float, float], size_px: int, step: float) -> NDArray[np.uint8]:
        """A square window, sampled from the map by nearest neighbour.

        Args:
            xy: (x, y) of the window's top-left corner, in map pixels.
            size_px: side of the window in its own pixels.
            step: map pixels per pixel of the window.

        Returns:
            ``(size_px, size_px)``, 0 outside the map.
        """
        level = max((index for index, factor in enumerate(self._factors) if factor <= step), default=0)
        factor, page = self._factors[level], self._levels[level]
        centres = (np.arange(size_px) + 0.5) * step
        columns, rows = (np.floor((start + centres) / factor).astype(np.int64) for start in xy)
        inside_x, inside_y = (columns >= 0) & (columns < page.imagewidth), (rows >= 0) & (rows < page.imagelength)
        window = np.zeros((size_px, size_px), np.uint8)
        if inside_x.any() and inside_y.any():
            window[np.ix_(inside_y, inside_x)] = self._pick(level, columns[inside_x], rows[inside_y])
        return window

    def _pick(self, level: int, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The map's pixels at these columns and rows, ``(rows, columns)``."""
        page = self._levels[level]
        height, width = page.tilelength, page.tilewidth
        picked = np.zeros((len(rows), len(columns)), np.uint8)
        for row in np.unique(rows // height):
            in_row = rows // height == row
            for column in np.unique(columns // width):
                in_column = columns // width == column
                tile = self._tile(level, int(row) * -(-page.imagewidth // width) + int(column))
                if tile is not None:
                    picked[np.ix_(in_row, in_column)] = tile[
                        np.ix_(rows[in_row] - row * height, columns[in_column] - column * width)
                    ]
        return picked

    def _tile(self, level: int, index: int) -> NDArray[np.uint8] | None:
        with self._lock:
            if (level, index) in self._kept:
                self._kept.move_to_end((level, index))
                return self._kept[level, index]
            try:
                tile = decode_tile(self._tiff, self._levels[level], index)
            except Exception as error:  # every codec raises its own errors
                raise ValueError(f"the map {self._path} is damaged ({error}); remove it and map the slide again") from error
            self._kept[level, index] = found = None if tile is None else tile[:, :, 0].astype(np.uint8, copy=False)
            if len(self._kept) > _KEPT_TILES:
                self._kept.popitem(last=False)
            return found

    def close(self) -> None:
        self._tiff.close()
