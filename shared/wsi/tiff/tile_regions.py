"""Regions of a tiled page, put together from its tiles, each of which is decoded once a read."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .layout import TiffPageLayout
from .tiles import touched_tiles

DecodeTile = Callable[[TiffPageLayout, int, bytes], NDArray[np.generic]]


class TileRegions:
    """Reads regions from the tiles of a TIFF, in as many threads as asked for, from several threads at once.

    Args:
        path: of the TIFF.
        decode: a tile's pixels ``(H, W, 3)``, from its page, its number and its bytes, which are not empty. What it raises says
            what is wrong with the tile.
        glass: what is seen where the file leaves a tile out.
        kept_bytes: of the tiles read last, which are not decoded again.
    """

    def __init__(self, path: Path, decode: DecodeTile, glass: int, kept_bytes: int = 0) -> None:
        self._file, self._decode, self._glass = os.open(path, os.O_RDONLY), decode, glass
        self._kept: OrderedDict[tuple[int, int, int], NDArray[np.generic]] = OrderedDict()
        self._bytes_left, self._keeping = kept_bytes, threading.Lock()

    def read(
        self, page: TiffPageLayout, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int
    ) -> NDArray[np.uint8]:
        """Regions of (width, height) `size_px` at `origins` ``(n, 2)``, (x, y) in pixels of the page, wholly inside of it.

        Returns:
            ``(n, height, width, 3)``.

        Raises:
            RuntimeError: naming a tile that is damaged.
        """
        regions = np.full((len(origins), size_px[1], size_px[0], 3), self._glass, dtype=np.uint8)
        regions_of: dict[int, set[int]] = {}
        for region, indices in enumerate(touched_tiles(page, origins, size_px).reshape(len(origins), -1).tolist()):
            for index in indices:
                regions_of.setdefault(index, set()).add(region)

        def paste(index: int) -> None:
            tile = self._tile(page, index)
            if tile is not None:
                row, column = divmod(index, -(-page.size_px[0] // page.tile_size_px[0]))
                corner = (column * page.tile_size_px[0], row * page.tile_size_px[1])
                for region in regions_of[index]:
                    _copy(tile, corner, regions[region], origins[region].tolist())

        if num_workers > 1 and len(regions_of) > 1:
            with ThreadPoolExecutor(num_workers) as pool:
                list(pool.map(paste, regions_of))
        else:
            for index in regions_of:
                paste(index)
        return regions

    def _tile(self, page: TiffPageLayout, index: int) -> NDArray[np.generic] | None:
        offset, length = page.tile_spans[index].tolist()
        if not length:
            return None
        key = (*page.size_px, index)
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            tile = self._decode(page, index, os.pread(self._file, length, offset))
        except Exception as error:  # each codec has its own errors
            raise RuntimeError(f"tile {index} is damaged: {error}") from error
        with self._keeping:
            if key not in self._kept:
                self._kept[key] = tile
                self._bytes_left -= tile.nbytes
            while self._bytes_left < 0:
                self._bytes_left += self._kept.popitem(last=False)[1].nbytes
        return tile

    def close(self) -> None:
        os.close(self._file)


def _copy(tile: NDArray[np.generic], corner: tuple[int, int], region: NDArray[np.uint8], origin: list[int]) -> None:
    """Copy what lies in a region ``(H, W, 3)`` at (x, y) `origin` of a tile ``(h, w, 3)`` at `corner`."""
    (x, y), (left, top) = corner, origin
    part = tile[max(0, top - y) : top + region.shape[0] - y, max(0, left - x) : left + region.shape[1] - x]
    y, x = max(y, top) - top, max(x, left) - left
    region[y : y + part.shape[0], x : x + part.shape[1]] = part
