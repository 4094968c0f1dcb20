"""The region in which a map is least certain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from shared.inference.region_map import Box
from shared.inference.row import Row

# Longest side of the level of the map that is read.
LONGEST_SIDE_PX = 2048


@dataclass(frozen=True)
class UncertainRegion:
    """A region in level-0 pixels and its mean uncertainty, in [0, 1]."""

    box: Box
    score: float


def uncertainty(probabilities: NDArray[np.uint8]) -> NDArray[np.float32]:
    """1 minus the lead of the most likely class over the next one, for each pixel; 0 where nothing was computed.

    Args:
        probabilities: uint8 ``(H, W)`` for tumour, or ``(C, H, W)`` for classes, 255 being 1.

    >>> uncertainty(np.array([[0, 51, 128, 255]], np.uint8)).astype(float).round(1).tolist()
    [[0.0, 0.4, 1.0, 0.0]]
    """
    values = probabilities.astype(np.float32) / 255
    if values.ndim == 2:
        return 1 - np.abs(2 * values - 1)
    second, first = np.sort(values, axis=0)[-2:]
    return np.where(first > 0, 1 - (first - second), 0).astype(np.float32)


def most_uncertain_region(path: Path, row: Row, size_px: tuple[int, int]) -> UncertainRegion:
    """The region of a slide with the highest mean uncertainty, on a grid of half its size.

    Args:
        path: path of the slide's map, ``.ome.tif``.
        row: row of the slide, with its size and pixel sizes.
        size_px: (width, height) of the region in level-0 pixels.
    """
    values, map_pixel = _level(path, float(row["map_mpp"]) / float(row["mpp"]))
    column, row_of_map, score = best_window(uncertainty(values), map_pixel, size_px)
    x, y = (round(start * map_pixel) for start in (column, row_of_map))
    box = (x, y, min(size_px[0], int(row["width_px"]) - x), min(size_px[1], int(row["height_px"]) - y))
    return UncertainRegion(box, score)


def best_window(scores: NDArray[np.floating], cell_px: float, size_px: tuple[int, int]) -> tuple[int, int, float]:
    """The window with the highest mean, on a grid of half its size.

    Args:
        scores: scores of the cells, ``(rows, columns)``.
        cell_px: side of a cell in pixels.
        size_px: (width, height) of the window, in the same pixels.

    Returns:
        its first column and row, and its mean.
    """
    # An integral image gives every window's sum in constant time.
    sums = np.pad(scores.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    spans = []
    for length, side in zip(scores.shape[::-1], size_px, strict=True):
        window = max(1, min(length, round(side / cell_px)))
        starts = np.unique(np.append(np.arange(0, length - window + 1, max(1, window // 2)), length - window))
        spans.append((starts, window))
    (xs, width), (ys, height) = spans
    top, left = ys[:, None], xs[None, :]
    totals = sums[top + height, left + width] - sums[top, left + width] - sums[top + height, left] + sums[top, left]
    y, x = np.unravel_index(int(totals.argmax()), totals.shape)
    return int(xs[x]), int(ys[y]), float(totals[y, x]) / (width * height)


def _level(path: Path, map_pixel: float) -> tuple[NDArray[np.uint8], float]:
    """The finest level of a map that is small enough, and the slide's level-0 pixels per pixel of that level."""
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        sides = [max(level.shape[-2:]) for level in levels]
        index = next((i for i, side in enumerate(sides) if side <= LONGEST_SIDE_PX), len(levels) - 1)
        values = levels[index].asarray()
        factor = max(1, math.floor(sides[0] / sides[index] + 0.5))
    return values, map_pixel * factor
