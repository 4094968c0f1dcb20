"""Regions of one size in images of many: published images differ in size, a training's do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ...wsi.slide_pool import open_slide
from ..record import Record, record_error, region_of
from ..record_masks import read_record_mask
from .tissue_regions import label_of_mask


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


def window_of(region: Record, image: NDArray[Any]) -> NDArray[Any]:
    """The part of an array of a whole image ``(height, width)`` that a region covers, as a view."""
    x, y, width, height = region_of(region, (image.shape[1], image.shape[0]))
    return image[y : y + height, x : x + width]


def labelled_squares(
    record: Record, size_px: int, num_classes: int = 2, class_names: Sequence[str] | None = None
) -> list[Record]:
    """Square regions of an image, or of a region of a slide, labelled by its mask.

    Args:
        record: of a manifest, with a mask or with label 0.
        size_px: side of a square in level-0 pixels, see `image_regions`.
        num_classes: of the masks; two are 0 and whatever is above it.
        class_names: the class of each index in annotation files, see `read_record_mask`.

    Returns:
        Records with ``x, y, width_px, height_px`` in level-0 pixels; ``label`` and ``area`` as those of `slide_regions`.

    Raises:
        ValueError: naming the row, for a file that cannot be read, or an image with tumour but no mask.
    """
    if record.get("mask") is None and record.get("label") != 0:
        raise record_error(
            record, "squares cut from an image with tumour can only be labelled by its mask, and the column 'mask' is empty"
        )
    try:
        whole_px = open_slide(record["image"], mpp=record.get("mpp")).size_px
        left, top, *size = region_of(record, whole_px)
        columns, rows = (region_starts(length, size_px) for length in size)
        squares: list[Record] = []
        for x, y in ((left + x, top + y) for y in rows for x in columns):
            square: Record = {**record, "x": x, "y": y, "width_px": size_px, "height_px": size_px, "label": 0, "area": 0.0}
            if record.get("mask") is not None:
                mask = read_record_mask(record, (x, y), size_px, whole_px, num_classes=num_classes, class_names=class_names)
                square["label"] = label_of_mask(mask)
                square["area"] = max(round(float((mask > 0).mean()), 4), 1e-4) if square["label"] else 0.0
            squares.append(square)
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error
    return squares
