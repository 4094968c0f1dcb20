"""Which levels of a slide are what they claim to be: level 0, made smaller."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..geometry.pyramid import is_reduction, level_downsamples
from .readers.reader import LevelReader

logger = logging.getLogger(__name__)

# Side of a spot in pixels of the coarser of two levels; in the finer one it takes a few tiles.
_SPOT_PX, _SMALLEST_SPOT_PX, _LARGEST_SOURCE_PX = 64, 16, 512
# Spots are compared in squares of so many pixels: a shift by a pixel, sharpening and JPEG of any quality change little then.
_SQUARE_PX, _LEAST_SQUARES = 4, 8
# Brightness varies by more than this in a spot that shows something; by noise, JPEG or uneven light it varies by 1 or 2.
_LEAST_CONTRAST, _NO_CONTRAST = 4.0, 0.1
# In real pyramids the correlation is above 0.9; of pictures that have nothing in common about one spot in ten reaches this.
_LEAST_CORRELATION = 0.7
_NUM_SPOTS = 4
# The coarsest level, where it is no larger, tells where the slide shows something; read whole it takes some milliseconds.
_LARGEST_GUIDE_PX = 2**20
_CELLS_ALONG_GUIDE, _NUM_GUIDED, _CELLS_APART = 24, 6, 5
_CELLS_ALONG_SLIDE = 3
_MAX_KNOWN_FILES = 10_000
# What was found for each file, so that a slide that is opened again costs nothing and is warned about once.
_known: dict[tuple[object, ...], tuple[int, ...]] = {}

Size = tuple[int, int]
# Middle of a spot, as shares of the slide's width and height.
Place = tuple[float, float]


@dataclass(frozen=True)
class _Level:
    reader: LevelReader
    index: int

    @property
    def size_px(self) -> Size:
        return self.reader.level_sizes_px[self.index]

    def brightness(self, origin: tuple[int, int], size_px: Size) -> NDArray[np.float32]:
        """Mean of the channels ``(H, W)`` of a region that lies inside the level."""
        rgb = self.reader.read(self.index, np.array([origin], dtype=np.int64), size_px, 1)[0]
        return rgb.mean(axis=-1, dtype=np.float32)


def sound_levels(path: Path, level_sizes_px: Sequence[Size], open_reader: Callable[[], LevelReader]) -> tuple[int, ...]:
    """The levels that show level 0, finest first, by the numbers that the library gives them.

    A level is left out, and named in one warning per file and process, if its two sides have different downsamples (see
    `is_reduction`), or if most of a few spots of it do not look like the same places of the next finer level: a photo of the
    whole glass, a level that was padded. Spots are taken where there is something to see; a level on which nothing is, as on
    empty glass, is kept. So is one whose spots cannot be read: reading it will say what is wrong.

    Args:
        path: of the slide.
        level_sizes_px: (width, height) of all levels.
        open_reader: opens the slide once more; called where there is something to compare.
    """
    if len(level_sizes_px) == 1:
        return (0,)
    status = path.stat()
    key = (str(path.absolute()), status.st_size, status.st_mtime_ns, tuple(level_sizes_px))
    if key not in _known:
        if len(_known) >= _MAX_KNOWN_FILES:
            _known.clear()
        _known[key] = _find_sound_levels(path, level_sizes_px, open_reader)
    return _known[key]


def _find_sound_levels(path: Path, sizes: Sequence[Size], open_reader: Callable[[], LevelReader]) -> tuple[int, ...]:
    downsamples = level_downsamples(sizes)
    levels = sorted(range(1, len(sizes)), key=lambda level: downsamples[level])
    problems = {level: _ratios(sizes[0], sizes[level]) for level in levels if not is_reduction(sizes[0], sizes[level])}
    levels = [level for level in levels if level not in problems]
    if levels:
        reader = open_reader()
        try:
            problems |= _foreign_levels(reader, levels)
        except (RuntimeError, OSError):
            logger.debug("%s: its levels cannot be compared", path, exc_info=True)
        finally:
            reader.close()
    if problems:
        named = "; ".join(f"level {level} ({sizes[level][0]} x {sizes[level][1]} px): {problems[level]}" for level in problems)
        logger.warning("%s: left out stored levels that are not smaller copies of the slide: %s", path, named)
    return (0, *(level for level in levels if level not in problems))


def _ratios(size_px: Size, level_size_px: Size) -> str:
    x, y = (whole / side for whole, side in zip(size_px, level_size_px, strict=True))
    return f"level 0 is {x:.4g} times as wide, but {y:.4g} times as high"


def _foreign_levels(reader: LevelReader, levels: Sequence[int]) -> dict[int, str]:
    """The problems of those `levels`, finest first, that show something other than level 0."""
    places = _places(_Level(reader, levels[-1]))
    problems, finer = {}, 0
    for level in levels:
        if _show_the_same(_Level(reader, level), _Level(reader, finer), places):
            finer = level
        else:
            problems[level] = f"it does not show the same as level {finer} at the same places"
    return problems


def _places(guide: _Level) -> list[Place]:
    """Where to compare: where a small level varies most, no two near each other, then places all over the slide."""
    width, height = guide.size_px
    cells = [(cell + 0.5) / _CELLS_ALONG_SLIDE for cell in range(_CELLS_ALONG_SLIDE)]
    spread = [(x, y) for y in cells for x in cells]
    if width * height > _LARGEST_GUIDE_PX:
        return spread
    contrast = _contrast_of_cells(guide.brightness((0, 0), guide.size_px))
    guided: list[Place] = []
    while len(guided) < _NUM_GUIDED and contrast.max() > 0:
        row, column = np.unravel_index(contrast.argmax(), contrast.shape)
        guided.append(((column + 0.5) / contrast.shape[1], (row + 0.5) / contrast.shape[0]))
        contrast[
            max(0, row - _CELLS_APART) : row + _CELLS_APART + 1, max(0, column - _CELLS_APART) : column + _CELLS_APART + 1
        ] = 0
    return guided + spread


def _contrast_of_cells(brightness: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much a picture varies in each cell of a grid."""
    rows, columns = (np.linspace(0, side, min(_CELLS_ALONG_GUIDE, side) + 1).astype(int) for side in brightness.shape)
    cells = [[brightness[top:bottom, left:right] for left, right in pairwise(columns)] for top, bottom in pairwise(rows)]
    return np.array([[cell.std() for cell in row] for row in cells], dtype=np.float64)


def _show_the_same(level: _Level, finer: _Level, places: Sequence[Place]) -> bool:
    """Whether most of the spots that show something, on either of two levels, look alike on both."""
    agree: list[bool] = []
    for place in places:
        if len(agree) == _NUM_SPOTS:
            break
        spots = _spots(level, finer, place)
        contrasts = [float(spot.std()) for spot in spots]
        if max(contrasts) > _LEAST_CONTRAST:
            agree.append(min(contrasts) > _NO_CONTRAST and _correlation(*spots) >= _LEAST_CORRELATION)
    return 2 * sum(agree) > len(agree) or not agree


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Its size alone: a negative shows the same places."""
    return abs(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]))


def _spots(level: _Level, finer: _Level, place: Place) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same spot of two levels, in squares, ``(h, w)`` each."""
    scales = [fine / coarse for fine, coarse in zip(finer.size_px, level.size_px, strict=True)]
    side = int(np.clip(_LARGEST_SOURCE_PX / max(scales), _SMALLEST_SPOT_PX, _SPOT_PX))
    size = [min(side, length) for length in level.size_px]
    origin = [
        int(np.clip(share * length - part / 2, 0, length - part))
        for share, length, part in zip(place, level.size_px, size, strict=True)
    ]
    source_size = [
        max(1, min(round(part * scale), length)) for part, scale, length in zip(size, scales, finer.size_px, strict=True)
    ]
    source_origin = [
        min(round(start * scale), length - part)
        for start, scale, length, part in zip(origin, scales, finer.size_px, source_size, strict=True)
    ]
    squares = [min(length, max(_LEAST_SQUARES, length // _SQUARE_PX)) for length in size]
    regions = (
        level.brightness((origin[0], origin[1]), (size[0], size[1])),
        finer.brightness((source_origin[0], source_origin[1]), (source_size[0], source_size[1])),
    )
    coarse, fine = (Image.fromarray(region).resize((squares[0], squares[1]), Image.Resampling.BOX) for region in regions)
    return np.asarray(coarse), np.asarray(fine)
