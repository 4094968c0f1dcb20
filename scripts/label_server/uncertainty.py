"""Where a map is least certain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from shared.inference.region_map import Box
from shared.inference.row import Row

# Of the level of the map that is looked at.
LONGEST_SIDE_PX = 2048


@dataclass(frozen=True)
class UncertainRegion:
    """A region in level-0 pixels and its mean uncertainty, in [0, 1]."""

    box: Box
    score: float


def uncertainty(probabilities: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How little the likeliest class leads, pixel by pixel: 1 minus its distance from the next, 0 where nothing was computed.

    Args:
        probabilities: ``(H, W)`` of tumour, or ``(C, H, W)`` of classes, 255 being 1.

    >>> uncertainty(np.array([[0, 51, 128, 255]], np.uint8)).astype(float).round(1).tolist()
    [[0.0, 0.4, 1.0, 0.0]]
    """
    values = probabilities.astype(np.float32) / 255
    if values.ndim == 2:
        return 1 - np.abs(2 * values - 1)
    second, first = np.sort(values, axis=0)[-2:]
    return np.where(first > 0, 1 - (first - second), 0).astype(np.float32)


def most_uncertain_region(path: Path, row: Row, size_px: tuple[int, int]) -> UncertainRegion:
    """The region of a slide whose mean uncertainty is highest, on a grid of half its size.

    Args:
        path: of the slide's map, ``.ome.tif``.
        row: of the slide, with its size and pixel sizes.
        size_px: (width, height) of the region in level-0 pixels.
    """
    values, map_pixel = _level(path, float(row["map_mpp"]) / float(row["mpp"]))
    wanted = uncertainty(values)
    # An integral image gives every window's sum in constant time.
    sums = np.pad(wanted.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    spans = []
    for length, side in zip(wanted.shape[::-1], size_px, strict=True):
        window = max(1, min(length, round(side / map_pixel)))
        starts = np.unique(np.append(np.arange(0, length - window + 1, max(1, window // 2)), length - window))
        spans.append((starts, window))
    (xs, width), (ys, height) = spans
    top, left = ys[:, None], xs[None, :]
    means = (sums[top + height, left + width] - sums[top, left + width] - sums[top + height, left] + sums[top, left]) / (
        width * height
    )
    best = np.unravel_index(int(means.argmax()), means.shape)
    x, y = (round(float(start) * map_pixel) for start in (xs[best[1]], ys[best[0]]))
    box = (x, y, min(size_px[0], int(row["width_px"]) - x), min(size_px[1], int(row["height_px"]) - y))
    return UncertainRegion(box, float(means[best]))


def _level(path: Path, map_pixel: float) -> tuple[NDArray[np.uint8], float]:
    """The finest level of a map that is small enough, and level-0 pixels of the slide per pixel of it."""
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        sides = [max(level.shape[-2:]) for level in levels]
        index = next((i for i, side in enumerate(sides) if side <= LONGEST_SIDE_PX), len(levels) - 1)
        values = levels[index].asarray()
        factor = max(1, math.floor(sides[0] / sides[index] + 0.5))
    return values, map_pixel * factor
