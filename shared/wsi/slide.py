"""One class for every image that the project reads: whole slides through cuCIM or OpenSlide, tiles through Pillow."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..geometry.pyramid import (
    MPP_TOLERANCE,
    exact_tolerance,
    level_downsamples,
    mpp_to_downsample,
    nearest_finer_level,
    snap_downsample,
)
from .failures import read_remedy
from .opening import open_file, open_reader
from .pyramid_check import sound_levels
from .readers.reader import GLASS, LevelReader
from .resample import filter_margin_px, resample
from .spacing import STATED_RANGE, is_possible_spacing, read_magnification, read_spacing

# Source pixels held at once while regions are resampled: 2**24 are 48 MB.
_LARGEST_SOURCE_PX = 2**24
# A thumbnail has an exact size, so its downsample may not be snapped to that of a level.
_EXACT = 1e-9


class Slide:
    """A slide or an image tile, read by region at any pixel size.

    Positions are (x, y) in level-0 pixels and may lie anywhere: what is outside the slide is white glass (255).
    Sizes are (width, height), or one number for a square, in pixels *at the pixel size asked for*. Arrays are
    uint8 ``(H, W, 3)`` RGB. A level whose pixel size is within 2 % of the wanted one is read as it is stored (from
    the nearest whole pixel); otherwise the nearest finer level is resampled, exact to a fraction of a pixel.

    A slide may be opened in one process and read in others, forked or spawned: each opens the file for itself. After
    `close` the next read opens it again.

    Levels that are no smaller copies of level 0 (see `sound_levels`) are left out, with a warning.

    Args:
        path: the file.
        backend: "auto" (cuCIM, else OpenSlide, else Pillow), or one of "cucim", "openslide", "pillow" to force it.
        mpp: micrometres per level-0 pixel; overrides the file's own. A file that differs by more than 2 % is warned about, once.

    Attributes:
        magnification: how many times the objective magnifies, None where the file does not say; no pixel size follows from it.
        mpp_note: of tags that say what no pixel size can be, for messages; empty where there is none.
        bounds_px: (x, y, width, height) of the part of level 0 that the scanner has scanned; all of it where the file does not
            say (MIRAX and Leica SCN do, for example). QuPath shows this part alone.

    Raises:
        ValueError: if the file is missing, damaged or of no known format, or the forced backend cannot read it; if its tags say
            a pixel size of less than 0.05 um or another that cannot be, and `mpp` does not say what is right.
    """

    def __init__(self, path: str | Path, backend: str = "auto", mpp: float | None = None) -> None:
        self.path = Path(path)
        if mpp is not None and not is_possible_spacing(mpp):
            raise ValueError(f"{path}: mpp must be a positive number of micrometres per pixel ({STATED_RANGE}), got {mpp}")
        opened = open_file(self.path, backend)
        self._library, self._file = opened.library, opened.file
        # What the library calls the levels that are used.
        reopen = functools.partial(open_reader, opened.library, opened.file)
        self._library_levels = sound_levels(self.path, opened.reader.level_sizes_px, reopen)
        self.level_sizes_px = tuple(opened.reader.level_sizes_px[level] for level in self._library_levels)
        self.level_downsamples = level_downsamples(self.level_sizes_px)
        properties = opened.reader.properties()
        self.bounds_px = _bounds_px(properties, self.level_sizes_px[0])
        spacing = read_spacing(opened.file.layout, properties)
        if mpp is not None:
            spacing.compare(self.path, mpp)
        self._mpp = mpp if mpp is not None else spacing.checked_um(self.path)
        self.mpp_note = "".join(f" ({sentence})" for sentence in spacing.passed_over)
        self.magnification = read_magnification(opened.file.layout, properties)
        self._reader: LevelReader | None = opened.reader
        self._reader_pid = os.getpid()

    @property
    def backend(self) -> str:
        """Name of the library that reads the file."""
        return self._library.name

    @property
    def is_picture(self) -> bool:
        """Whether this is a picture and no slide: without a pixel size it may be taken as it is stored."""
        return self._library.reads_pictures

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of level 0."""
        return self.level_sizes_px[0]

    @property
    def qupath_origin_px(self) -> tuple[int, int]:
        """(x, y) at level 0 from which QuPath counts its coordinates: the corner of `bounds_px`."""
        return self.bounds_px[:2]

    @property
    def has_mpp(self) -> bool:
        return self._mpp is not None

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel; ValueError where neither the file nor the caller gave it."""
        if self._mpp is None:
            raise ValueError(
                f"{self.path} does not state its pixel size{self.mpp_note}; pass mpp=... (micrometres per level-0 pixel) "
                "or fill the manifest's `mpp` column"
            )
        return self._mpp

    def downsample(self, mpp: float | None) -> float:
        """Level-0 pixels per pixel of a region read at `mpp` (None: level 0 as stored)."""
        if mpp is None:
            return 1.0
        return snap_downsample(self.level_downsamples, mpp_to_downsample(mpp, self.mpp))

    def read_region(
        self, xy: tuple[int, int], size_px: int | tuple[int, int], mpp: float | None = None, exact: bool = False
    ) -> NDArray[np.uint8]:
        """One region.

        Args:
            xy: its top-left corner in level-0 pixels.
            size_px: (width, height) or one side, in pixels at `mpp`.
            mpp: micrometres per pixel; None reads level 0 as stored.
            exact: see `read_regions`.

        Returns:
            ``(height, width, 3)``.

        Raises:
            ValueError: if `mpp` is given and the slide has none, or the file is damaged there.
        """
        return self.read_regions([xy], size_px, mpp, exact=exact)[0]

    def read_regions(
        self,
        xys: ArrayLike | Sequence[tuple[int, int]],
        size_px: int | tuple[int, int],
        mpp: float | None = None,
        num_workers: int = 1,
        exact: bool = False,
    ) -> NDArray[np.uint8]:
        """Many regions of one size, in the order asked for; with two workers about twice as fast as one by one.

        Args:
            xys: ``(n, 2)`` top-left corners (x, y) in level-0 pixels; n may be 0.
            size_px: (width, height) or one side, in pixels at `mpp`.
            mpp: micrometres per pixel; None reads level 0 as stored.
            num_workers: decoding threads; keep 1 inside a DataLoader's worker.
            exact: each pixel lies where `mpp` says, to half a pixel, as it must beside a mask or a map. Otherwise a level within
                2 % of `mpp` is read as it is, at `downsample`, which is good enough for a network that learned at `mpp`.

        Returns:
            ``(n, height, width, 3)``.

        Raises:
            ValueError: as `read_region`, and if `xys` is not ``(n, 2)``.
        """
        width, height = (size_px, size_px) if isinstance(size_px, int | np.integer) else size_px
        if width < 1 or height < 1:
            raise ValueError(f"{self.path}: a region needs at least one pixel, got size_px={size_px}")
        positions = np.asarray(xys, dtype=np.float64)
        if not positions.size:
            positions = np.empty((0, 2))
        if positions.ndim != 2 or positions.shape[1] != 2:
            raise ValueError(f"{self.path}: positions must be (n, 2), x and y; got shape {positions.shape}")
        if not exact or mpp is None:
            return self._read(positions, (int(width), int(height)), self.downsample(mpp), num_workers)
        tolerance = exact_tolerance(max(width, height))
        downsample = snap_downsample(self.level_downsamples, mpp_to_downsample(mpp, self.mpp), tolerance)
        return self._read(positions, (int(width), int(height)), downsample, num_workers, tolerance)

    def thumbnail(self, max_size_px: int) -> NDArray[np.uint8]:
        """The whole slide, its longer side `max_size_px` (or its own, if that is less): ``(H, W, 3)``."""
        if max_size_px < 1:
            raise ValueError(f"{self.path}: a thumbnail needs at least one pixel, got max_size_px={max_size_px}")
        downsample = max(1.0, max(self.size_px) / max_size_px)
        width, height = (max(1, round(side / downsample)) for side in self.size_px)
        level = nearest_finer_level(self.level_downsamples, downsample, _EXACT)
        return self._read_in_blocks(level, np.zeros(2), (width, height), downsample, 1, _EXACT)

    def _read(
        self,
        positions: NDArray[np.float64],
        size_px: tuple[int, int],
        downsample: float,
        num_workers: int,
        tolerance: float = MPP_TOLERANCE,
    ) -> NDArray[np.uint8]:
        """Regions at `positions` ``(n, 2)``, which need not be whole pixels."""
        level = nearest_finer_level(self.level_downsamples, downsample, tolerance)
        scale = downsample / self.level_downsamples[level]
        options = size_px, downsample, num_workers, tolerance
        if abs(scale - 1) > tolerance and math.prod(_source_size(size_px, scale)) > _LARGEST_SOURCE_PX:
            regions = [self._read_in_blocks(level, position, *options) for position in positions]
            return np.stack(regions) if regions else np.empty((0, size_px[1], size_px[0], 3), dtype=np.uint8)
        return self._read_at_once(level, positions, *options)

    def _read_in_blocks(
        self,
        level: int,
        position: NDArray[np.float64],
        size_px: tuple[int, int],
        downsample: float,
        num_workers: int,
        tolerance: float,
    ) -> NDArray[np.uint8]:
        """One region ``(H, W, 3)`` block by block, because of a slide without coarse levels it would not fit into memory."""
        scale = downsample / self.level_downsamples[level]
        block_px = max(1, int(math.sqrt(_LARGEST_SOURCE_PX) * self.level_downsamples[level] / downsample))
        reach = filter_margin_px(scale) * self.level_downsamples[level]
        region = np.full((size_px[1], size_px[0], 3), GLASS, dtype=np.uint8)
        for top, left in itertools.product(range(0, size_px[1], block_px), range(0, size_px[0], block_px)):
            block = region[top : top + block_px, left : left + block_px]
            size = (block.shape[1], block.shape[0])
            corner = position + np.array([left, top]) * downsample
            if (corner - reach < self.size_px).all() and (corner + np.array(size) * downsample + reach > 0).all():
                block[:] = self._read_at_once(level, corner[None], size, downsample, num_workers, tolerance)[0]
        return region

    def _read_at_once(
        self,
        level: int,
        positions: NDArray[np.float64],
        size_px: tuple[int, int],
        downsample: float,
        num_workers: int,
        tolerance: float,
    ) -> NDArray[np.uint8]:
        """Regions ``(n, H, W, 3)``, so many of them at once as `_LARGEST_SOURCE_PX` holds."""
        corners = positions / self.level_downsamples[level]
        scale = downsample / self.level_downsamples[level]
        if abs(scale - 1) <= tolerance:
            return self._read_level(level, np.floor(corners + 0.5).astype(np.int64), size_px, num_workers)
        origins = np.floor(corners).astype(np.int64) - filter_margin_px(scale)
        source_size = _source_size(size_px, scale)
        regions = np.empty((len(positions), size_px[1], size_px[0], 3), dtype=np.uint8)
        step = max(1, _LARGEST_SOURCE_PX // math.prod(source_size))
        for start in range(0, len(positions), step):
            part = slice(start, start + step)
            sources = self._read_level(level, origins[part], source_size, num_workers)
            for region, source, (x, y) in zip(regions[part], sources, corners[part] - origins[part], strict=True):
                region[:] = resample(source, (float(x), float(y)), scale, size_px)
        return regions

    def _read_level(
        self, level: int, origins: NDArray[np.int64], size_px: tuple[int, int], num_workers: int
    ) -> NDArray[np.uint8]:
        """Regions in pixels of one level, glass where they are outside it.

        Libraries fill what is outside with black, white or nothing, depending on the file. So they get regions moved
        inside the level, all of one size as the batched read needs, and the parts asked for are copied from them.
        """
        width, height = size_px
        level_size = np.array(self.level_sizes_px[level])
        inner_size = np.minimum(level_size, size_px)
        touching = np.flatnonzero(((origins < level_size) & (origins + size_px > 0)).all(axis=1))
        if not len(touching):
            return np.full((len(origins), height, width, 3), GLASS, dtype=np.uint8)
        inner_origins = np.clip(origins[touching], 0, level_size - inner_size)
        try:
            inner_size_px = (int(inner_size[0]), int(inner_size[1]))
            inner = self._open_reader().read(self._library_levels[level], inner_origins, inner_size_px, num_workers)
        except (RuntimeError, OSError) as error:
            hint = read_remedy(self._file, self._reader, level, self.is_picture)
            raise ValueError(f"{self.path}: level {level} cannot be read ({error}); {hint}") from error
        if len(touching) == len(origins) and np.array_equal(inner_origins, origins) and tuple(inner_size) == size_px:
            return inner
        regions = np.full((len(origins), height, width, 3), GLASS, dtype=np.uint8)
        for index, source, offset in zip(touching, inner, inner_origins - origins[touching], strict=True):
            _paste(source, regions[index], (int(offset[0]), int(offset[1])))
        return regions

    def _open_reader(self) -> LevelReader:
        # A handle that was opened before a fork shares its file position with the parent: never use it in the child.
        if self._reader is None or self._reader_pid != os.getpid():
            self._reader = open_reader(self._library, self._file)
            self._reader_pid = os.getpid()
        return self._reader

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None and self._reader_pid == os.getpid():
            self._reader.close()
        self._reader = None

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_reader": None}

    def __repr__(self) -> str:
        return f"Slide({str(self.path)!r}, backend={self.backend!r}, size_px={self.size_px}, mpp={self._mpp})"


def _bounds_px(properties: Mapping[str, str], size_px: tuple[int, int]) -> tuple[int, int, int, int]:
    """See `Slide.bounds_px`; `properties` are OpenSlide's."""
    try:
        x, y = (int(properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
        width = int(properties.get("openslide.bounds-width", size_px[0] - x))
        height = int(properties.get("openslide.bounds-height", size_px[1] - y))
    except ValueError:  # as QuPath takes what are no whole numbers
        return (0, 0, *size_px)
    return x, y, width, height


def _source_size(size_px: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of the pixels of a level from which a region is resampled; `scale` is level pixels per pixel."""
    width, height = (math.ceil(side * scale) + 1 + 2 * filter_margin_px(scale) for side in size_px)
    return width, height


def _paste(source: NDArray[np.uint8], target: NDArray[np.uint8], offset: tuple[int, int]) -> None:
    """Copy `source` into `target`, both (H, W, 3), its corner at (x, y) `offset`; what does not fit is dropped."""
    (source_x, target_x), (source_y, target_y) = (
        (slice(max(0, -start), max(0, target_length - start)), slice(max(0, start), max(0, start + source_length)))
        for start, source_length, target_length in zip(offset, source.shape[1::-1], target.shape[1::-1], strict=True)
    )
    target[target_y, target_x] = source[source_y, source_x]
