"""Tiled TIFF through cuCIM."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..tiff.layout import glass_tiles
from ..tiff.tiles import TileCheck
from .cucim_support import cucim_file_problem, usable_cucim_problem
from .openslide import openslide_properties
from .reader import GLASS, TIFF_SUFFIXES, Reader, SlideFile, turned_tiles_problem

_BATCH_SIZE = 16


class CucimReader(Reader):
    """Tiled TIFF through cuCIM's batched reader.

    For a JPEG or LZW tile that it cannot decode cuCIM returns black or what the memory held before, and a deflate tile ends the
    process in a read of several locations: so every tile goes through `TileCheck` first.

    A tile that the writer left out, which cuCIM shows black, is read from the next finer level, as OpenSlide does it for
    Aperio's slides; where level 0 has none either, it is glass.
    """

    name = "cucim"
    suffixes = TIFF_SUFFIXES | {".svs"}

    @classmethod
    def problem(cls, file: SlideFile) -> str | None:
        # The file first: a folder of PNG tiles needs no warning that cuCIM is missing.
        return (
            turned_tiles_problem(cls.name, file.layout) or cucim_file_problem(file.layout, file.vendor) or usable_cucim_problem()
        )

    def __init__(self, file: SlideFile) -> None:
        from cucim.clara import CuImage

        self._file = file
        self._image = CuImage(str(file.path))
        self.level_sizes_px = tuple((int(w), int(h)) for w, h in self._image.resolutions["level_dimensions"])
        # By which the library divides, whatever the sides say.
        self._downsamples = tuple(float(downsample) for downsample in self._image.resolutions["level_downsamples"])
        self._pages = [file.page_of_size(size) for size in self.level_sizes_px]
        self._glass = glass_tiles(self._pages)
        self._tiles = TileCheck(file.path)
        for level in range(len(self.level_sizes_px)):  # what cuCIM cannot decode must show on opening
            self.read(level, np.zeros((1, 2), dtype=np.int64), (1, 1), num_workers=1)

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        width, height = size_px
        page = self._pages[level]
        if page is not None:
            self._tiles.check(page, origins, size_px)
        # cuCIM takes level-0 coordinates and truncates them to level pixels, so aim at the middle of the pixel.
        downsample = self._downsamples[level]
        locations = origins if downsample == 1 else np.rint((origins + 0.5) * downsample).astype(np.int64)
        if len(origins) == 1:  # a batch of one is no iterator but an image, whose memory is taken as it is
            regions = np.asarray(self._image.read_region(tuple(locations[0].tolist()), size_px, level))[None]
        else:
            regions = np.empty((len(origins), height, width, 3), dtype=np.uint8)
            batches = self._image.read_region(
                [tuple(location) for location in locations.tolist()],
                size_px,
                level,
                num_workers=max(num_workers, 1),  # cuCIM refuses 0 for several locations
                batch_size=_BATCH_SIZE,
            )
            done = 0
            for batch in batches:
                part = np.asarray(batch).reshape(-1, height, width, 3)
                regions[done : done + len(part)] = part
                done += len(part)
        self._fill_empty_tiles(regions, level, origins, num_workers)
        return regions

    def _fill_empty_tiles(self, regions: NDArray[np.uint8], level: int, origins: NDArray[np.int64], num_workers: int) -> None:
        """Fill in the tiles that the writer left out."""
        page = self._pages[level]
        if page is None or not page.empty_tiles.any():
            return
        height, width = regions.shape[1:3]
        for region, (x, y) in zip(regions, origins.tolist(), strict=True):
            columns = np.arange(x, x + width) // page.tile_size_px[0]
            rows = np.arange(y, y + height) // page.tile_size_px[1]
            region[self._glass[level][np.ix_(rows, columns)]] = GLASS
            # Tile by tile: a region may be large, and what it lacks small.
            for row, column in product(np.unique(rows), np.unique(columns)):
                if page.empty_tiles[row, column] and not self._glass[level][row, column]:
                    part = np.ix_(rows == row, columns == column)
                    left, top = x + int((columns < column).sum()), y + int((rows < row).sum())
                    size_px = (int((columns == column).sum()), int((rows == row).sum()))
                    region[part] = self._from_finer_level(level, (left, top), size_px, num_workers)

    def _from_finer_level(
        self, level: int, origin: tuple[int, int], size_px: tuple[int, int], num_workers: int
    ) -> NDArray[np.uint8]:
        """A region inside a level, ``(height, width, 3)``, made of the next finer one."""
        finer_size = self.level_sizes_px[level - 1]
        scales = [finer / side for finer, side in zip(finer_size, self.level_sizes_px[level], strict=True)]
        start = [corner * scale for corner, scale in zip(origin, scales, strict=True)]
        stop = [
            min((corner + side) * scale, end)
            for corner, side, scale, end in zip(origin, size_px, scales, finer_size, strict=True)
        ]
        first = [math.floor(edge) for edge in start]
        source_size = (math.ceil(stop[0]) - first[0], math.ceil(stop[1]) - first[1])
        source = self.read(level - 1, np.array([first], dtype=np.int64), source_size, num_workers)[0]
        box = (start[0] - first[0], start[1] - first[1], stop[0] - first[0], stop[1] - first[1])
        return np.asarray(Image.fromarray(source).resize(size_px, Image.Resampling.BOX, box=box))

    def properties(self) -> Mapping[str, str]:
        return openslide_properties(self._file)

    def close(self) -> None:
        self._image.close()
        self._tiles.close()
