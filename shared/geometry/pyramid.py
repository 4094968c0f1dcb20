"""From micrometres per pixel to downsamples and pyramid levels.

A downsample is the number of level-0 pixels along one side of a pixel: 1 at level 0, below 1 when finer than the slide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Scanners report 0.499, 0.2494 or 0.2527 um where a model asks for 0.5 or 0.25. Resampling by less than 2 % costs
# time and sharpness and changes nothing that a network could see.
MPP_TOLERANCE = 0.02


def mpp_to_downsample(mpp: float, slide_mpp: float) -> float:
    """Level-0 pixels per pixel of `mpp`.

    Args:
        mpp: the wanted pixel size in micrometres.
        slide_mpp: pixel size of level 0 in micrometres.

    Raises:
        ValueError: if a pixel size is not a positive, finite number.

    >>> mpp_to_downsample(mpp=1.0, slide_mpp=0.25)
    4.0
    """
    for name, value in (("mpp", mpp), ("slide_mpp", slide_mpp)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number of micrometres per pixel, got {value}")
    return mpp / slide_mpp


def level_downsamples(level_sizes_px: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Downsample of each level, by which both of its sides lie where they belong.

    It is the mean of the two sides' ratios where this puts the end of the longer side within half a pixel of the level. On a
    slide that is much longer than wide it does not: the ratio of the short side, which is rounded to whole pixels, is further
    off than the long side allows. Then it is the power of two, else the whole number, that explains both sides (see
    `is_reduction`), else the ratio of the longer side.

    Args:
        level_sizes_px: (width, height) of each level, level 0 first.

    >>> level_downsamples([(1000, 600), (500, 300)]), level_downsamples([(1500, 40000), (46, 1250)])
    ((1.0, 2.0), (1.0, 32.0))
    """
    return tuple(_level_downsample(level_sizes_px[0], level_size_px) for level_size_px in level_sizes_px)


def _level_downsample(size_px: tuple[int, int], level_size_px: tuple[int, int]) -> float:
    (width, height), (level_width, level_height) = size_px, level_size_px
    mean = (width / level_width + height / level_height) / 2
    lowest, highest = _possible_downsamples(size_px, level_size_px)
    if abs(max(size_px) / mean - max(level_size_px)) <= 0.5 or lowest > highest:
        return mean
    ratio = max(size_px) / max(level_size_px)
    candidates = (2.0 ** round(math.log2(ratio)), float(round(ratio)), ratio)
    return next((number for number in candidates if lowest <= number <= highest), min(max(ratio, lowest), highest))


def is_reduction(size_px: tuple[int, int], level_size_px: tuple[int, int]) -> bool:
    """Whether one downsample explains both sides of a level.

    A side may be rounded down, up or to the nearest whole pixel, at once or at every halving: it is then less than a pixel
    away from the exact quotient. A level that was padded to whole tiles, or another picture, is further away.

    Args:
        size_px: (width, height) of level 0.
        level_size_px: (width, height) of the level.

    >>> is_reduction((1101, 703), (275, 175)), is_reduction((1100, 700), (768, 512))
    (True, False)
    """
    lowest, highest = _possible_downsamples(size_px, level_size_px)
    return lowest <= highest


def _possible_downsamples(size_px: tuple[int, int], level_size_px: tuple[int, int]) -> tuple[float, float]:
    """The lowest and the highest downsample by which both sides are less than a pixel away; none where they are the wrong way
    round."""
    lowest = max(side / (level + 1) for side, level in zip(size_px, level_size_px, strict=True))
    highest = min(side / (level - 1) if level > 1 else math.inf for side, level in zip(size_px, level_size_px, strict=True))
    return lowest, highest


def nearest_finer_level(downsamples: Sequence[float], downsample: float, tolerance: float = MPP_TOLERANCE) -> int:
    """Index of the coarsest level that is at least as fine as `downsample`, or 0 where none is.

    Args:
        downsamples: of each level, in any order.
        downsample: the wanted one.
        tolerance: relative; a level that is coarser by no more than this counts as fine enough.

    >>> nearest_finer_level([1.0, 4.0, 16.0], downsample=8.0), nearest_finer_level([1.0, 4.0], downsample=3.99)
    (1, 1)
    >>> nearest_finer_level([1.0, 4.0, 16.0], downsample=0.5)
    0
    """
    fine_enough = [i for i, level in enumerate(downsamples) if level <= downsample * (1 + tolerance)]
    return max(fine_enough, key=lambda i: downsamples[i], default=0)


def exact_tolerance(size_px: int) -> float:
    """By how much, relatively, the downsample of a region with this longest side may differ from the wanted one, so that none of
    its pixels lies more than half a pixel from its place.

    >>> exact_tolerance(1000)
    0.0005
    """
    return 0.5 / size_px


def snap_downsample(downsamples: Sequence[float], downsample: float, tolerance: float = MPP_TOLERANCE) -> float:
    """The downsample at which a slide is really read: that of a level within `tolerance`, else the wanted one.

    Args:
        downsamples: of each level.
        downsample: the wanted one.
        tolerance: relative.

    >>> snap_downsample([1.0, 4.0005], downsample=4.0), snap_downsample([1.0, 4.0005], downsample=3.0)
    (4.0005, 3.0)
    """
    nearest = min(downsamples, key=lambda level: abs(level / downsample - 1))
    return nearest if abs(nearest / downsample - 1) <= tolerance else downsample
