"""The masks of manifest records: what a row says of its mask goes with it, wherever the mask is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..wsi import read_mask_region
from ..wsi.annotations import UNCLASSIFIED

Record = dict[str, Any]

# A row's mask, and what says how it is to be read: to be passed on where a row becomes several.
MASK_COLUMNS = ("mask", "tumour_classes", "annotation_frame")
# Between the names of several classes in one cell.
NAMES_SEPARATOR = "|"


def read_record_mask(
    record: Record,
    xy: tuple[int, int],
    size_px: int | tuple[int, int],
    image_size_px: tuple[int, int],
    downsample: float = 1.0,
    num_classes: int = 2,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """The part of a record's mask that belongs to a region of its image, see `read_mask_region`.

    Args:
        record: with ``image`` and ``mask``; its ``tumour_classes`` (with | between several) and ``annotation_frame`` say how an
            annotation file is read. Where its label is not 0, an annotated slide must have some tumour annotated.
        xy: top-left corner of the region in level-0 pixels.
        size_px: (width, height) or one side of the result.
        image_size_px: (width, height) of the image's level 0.
        downsample: level-0 pixels per pixel of the result.
        num_classes: classes of the mask.
        class_names: the class of each index in annotation files; takes the place of ``tumour_classes``.

    Returns:
        ``(height, width)`` class indices.

    Raises:
        ValueError: as `read_mask_region`; the row is for the caller to name, see `record_error`.
    """
    return read_mask_region(
        record["mask"],
        xy,
        size_px,
        image_size_px,
        downsample,
        record["image"],
        num_classes,
        class_names,
        tumour_classes=split_names(record.get("tumour_classes")),
        annotation_frame=record.get("annotation_frame"),
        needs_tumour=record.get("label") != 0,
    )


def split_names(names: str | None) -> list[str] | None:
    """The names of classes in one cell; None for an empty cell.

    >>> split_names("Tumor|DCIS"), split_names(None)
    (['Tumor', 'DCIS'], None)
    """
    return None if names is None else [name.strip() for name in names.split(NAMES_SEPARATOR)]


def join_names(names: str | Sequence[str] | None) -> str | None:
    """A cell of the names of classes, given as a list or as such a cell; None for none.

    Raises:
        ValueError: for what is no list of names.

    >>> join_names(["Tumor", "DCIS "]), join_names("Tumor | DCIS"), join_names([""]), join_names(None)
    ('Tumor|DCIS', 'Tumor|DCIS', 'Unclassified', None)
    """
    if names is None:
        return None
    names = names.split(NAMES_SEPARATOR) if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"tumour_classes must be one name at least, or a list of names, got {names!r}")
    return NAMES_SEPARATOR.join(name.strip() or UNCLASSIFIED for name in names)
