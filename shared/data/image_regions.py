"""Regions of one size in images of many: published images differ in size, a training's do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def region_starts(length_px: int, size_px: int) -> list[int]:
    """Where regions of `size_px` begin along a side, evenly from end to end; none where the side is shorter.

    Their number is the rounded quotient: neighbours overlap, or leave a gap, by half a region at most.

    >>> region_starts(775, 416), region_starts(522, 416), region_starts(1000, 250), region_starts(400, 416)
    ([0, 359], [53], [0, 250, 500, 750], [])
    """
    if size_px > length_px:
        return []
    number = max(1, int(length_px / size_px + 0.5))
    if number == 1:
        return [(length_px - size_px) // 2]
    # Rounded half up: `round` would take halves to even numbers.
    return [int(index * (length_px - size_px) / (number - 1) + 0.5) for index in range(number)]


def image_regions(record: Record, image_size_px: Sequence[int], size_px: int) -> list[Record]:
    """Square regions of an image, row by row, as records of a manifest.

    Args:
        record: of the whole image; its other fields are passed on.
        image_size_px: (width, height).
        size_px: side of a region, in pixels of the image.

    Returns:
        Records with ``x, y, width_px, height_px``; none where the image is too small.
    """
    columns, rows = (region_starts(length, size_px) for length in image_size_px)
    return [{**record, "x": x, "y": y, "width_px": size_px, "height_px": size_px} for y in rows for x in columns]
