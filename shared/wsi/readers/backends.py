"""One small reader a library. Each reads whole pixels of one level, inside the slide; `Slide` does the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...geometry.pyramid import level_downsamples
from ..orientation import upright_image, upright_size
from ..tiff.layout import TiffLayout, glass_tiles
from ..tiff.sample_range import dark_problem
from ..tiff.tiles import TileCheck
from .cucim_support import PLAIN_TILE_VENDORS

GLASS = 255
_CUCIM_BATCH_SIZE = 16
# Pillow's names of 8-bit pictures that it turns into RGB.
_READ_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"})


class LevelReader(Protocol):
    """What `Slide` needs of a library."""

    level_sizes_px: tuple[tuple[int, int], ...]

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        """Regions of (width, height) `size_px` at `origins` ``(n, 2)``, (x, y) in pixels *of the level*.

        The regions lie wholly inside the level. Returns ``(n, height, width, 3)``.
        """

    def close(self) -> None: ...


class CucimReader:
    """Tiled TIFF through cuCIM's batched reader.

    For a JPEG or LZW tile that it cannot decode cuCIM returns black or what the memory held before, and a deflate tile ends the
    process in a read of several locations: so every tile goes through `TileCheck` first.

    A tile that the writer left out, which cuCIM shows black, is read from the next finer level, as OpenSlide does it for
    Aperio's slides; where level 0 has none either, it is glass.
    """

    def __init__(self, path: Path, layout: TiffLayout) -> None:
        from cucim.clara import CuImage

        self._image = CuImage(str(path))
        self.level_sizes_px = tuple((int(w), int(h)) for w, h in self._image.resolutions["level_dimensions"])
        self._downsamples = level_downsamples(self.level_sizes_px)
        self._pages = [layout.page_of_size(size) for size in self.level_sizes_px]
        self._glass = glass_tiles(self._pages)
        self._tiles = TileCheck(path)
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
                batch_size=_CUCIM_BATCH_SIZE,
            )
            done = 0
            for batch in batches:
                part = np.asarray(batch).reshape(-1, height, width, 3)
                regions[done : done + len(part)] = part
                done += len(part)
        self._fill_empty_tiles(regions, level, origins, num_workers)
        return regions

    def _fill_empty_tiles(self, regions: NDArray[np.uint8], level: int, origins: NDArray[np.int64], num_workers: int) -> None:
        """What is to be seen where the writer left tiles out."""
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

    def close(self) -> None:
        self._image.close()
        self._tiles.close()


class OpenSlideReader:
    """Whatever OpenSlide reads.

    OpenSlide takes level-0 coordinates and interpolates between level pixels: where a level's downsample is no whole
    number (2.0005), its pixels are shifted by up to a quarter of a pixel against cuCIM's and the file's own. It reads on
    behind some damage: so the tiles of a TIFF of plain tiles, whose `layout` is known, go through `TileCheck` first.
    """

    def __init__(self, path: Path, layout: TiffLayout | None = None) -> None:
        import openslide

        self._error = openslide.OpenSlideError
        try:
            self._slide = openslide.OpenSlide(str(path))
        except openslide.OpenSlideError as error:
            raise RuntimeError(str(error)) from error
        self.properties: Mapping[str, str] = dict(self._slide.properties)
        self.level_sizes_px = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
        self._downsamples = level_downsamples(self.level_sizes_px)
        has_plain_tiles = layout is not None and self.properties.get("openslide.vendor") in PLAIN_TILE_VENDORS
        self._pages = [layout.page_of_size(size) if has_plain_tiles and layout else None for size in self.level_sizes_px]
        self._tiles = TileCheck(path)

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        page = self._pages[level]
        if page is not None:
            self._tiles.check(page, origins, size_px)
        locations = np.rint(origins * self._downsamples[level]).astype(np.int64).tolist()

        def read_one(location: list[int]) -> NDArray[np.uint8]:
            try:
                return _on_glass(self._slide.read_region((location[0], location[1]), level, size_px))
            except self._error as error:
                raise RuntimeError(str(error)) from error

        if num_workers > 1 and len(locations) > 1:
            with ThreadPoolExecutor(num_workers) as pool:
                return np.stack(list(pool.map(read_one, locations)))
        return np.stack([read_one(location) for location in locations])

    def close(self) -> None:
        self._slide.close()
        self._tiles.close()


class PillowReader:
    """An image file that is small enough to be held decoded: PNG, JPEG, BMP, untiled TIFF.

    It is read as it is to be seen: turned where its tag Orientation (of EXIF or TIFF) says so.
    """

    level_sizes_px: tuple[tuple[int, int], ...]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: NDArray[np.uint8] | None = None
        with Image.open(path) as image:
            if image.mode not in _READ_MODES:
                raise ValueError(f"its pixels are of Pillow mode {image.mode}, not 8-bit; convert it to 8-bit RGB")
            self.level_sizes_px = (upright_size(image),)

    def read(self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int) -> NDArray[np.uint8]:
        if self._pixels is None:
            try:
                with Image.open(self._path) as image:
                    problem = _unused_range_problem(image)
                    self._pixels = _on_glass(upright_image(image))
            except Exception as error:  # a damaged file: Pillow raises anything from OSError to SyntaxError
                raise RuntimeError(str(error)) from error
            if problem is not None:
                self._pixels = None
                raise ValueError(f"{self._path} cannot be read: {problem}")
        width, height = size_px
        return np.stack([self._pixels[y : y + height, x : x + width] for x, y in origins.tolist()])

    def close(self) -> None:
        self._pixels = None


def _unused_range_problem(image: Image.Image) -> str | None:
    # Pillow calls a picture of 16-bit samples RGB and takes the upper 8 bits.
    if not any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return None
    brightest = int(np.asarray(image.convert("RGB")).max())
    return dark_problem(brightest << 8 | 255) if brightest < 128 else None


def _on_glass(image: Image.Image) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` of an image whose transparent parts show white glass."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        glass = Image.new("RGB", image.size, (GLASS, GLASS, GLASS))
        glass.paste(image, mask=image.getchannel("A"))
        return np.asarray(glass)
    return np.asarray(image.convert("RGB"))
