"""The masks of manifest records: how a mask is read is part of its row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..wsi.annotations.annotation_classes import UNCLASSIFIED
from ..wsi.annotations.annotation_file import is_annotation_file
from ..wsi.annotations.mask_meaning import MaskMeaning
from ..wsi.annotations.reading import plain_name
from ..wsi.mask_region import open_annotation_mask, read_mask_region
from .record import Record

# A row's mask, and what says how it is to be read: to be passed on where a row becomes several.
MASK_COLUMNS = ("mask", "tumour_classes", "annotation_frame")
# Between the names of several classes in one cell.
NAMES_SEPARATOR = "|"
_MAX_MANIFESTS = 64


def columns_for(pixel_labels: str | None) -> list[str]:
    """Label columns of a manifest that a data set with these ``pixel_labels`` needs in every row.

    >>> columns_for("mask"), columns_for("label"), columns_for(None)
    (['label', 'mask'], ['label'], ['label'])
    """
    return ["label", "mask"] if pixel_labels == "mask" else ["label"]


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
        ValueError: as `read_mask_region`; if an image of label 0 has tumour annotated, or another has none; if nothing says
            which classes are tumour and another annotation file of the manifest was of another class. The caller names the row,
            see `record_error`.
    """
    file = record.get("mask")
    if file is None:
        raise ValueError("the column 'mask' is empty")
    tumour_classes, frame = split_names(record.get("tumour_classes")), record.get("annotation_frame")
    meaning = MaskMeaning(num_classes, class_names, tumour_classes, frame, needs_tumour=record.get("label") != 0)
    image_path, mpp = record["image"], record.get("mpp")
    if is_annotation_file(file):
        mask = open_annotation_mask(file, image_size_px, image_path, meaning, mpp)
        if num_classes == 2 and record.get("label") == 0 and record.get("x") is None and not mask.is_empty:
            raise ValueError(
                f"label 0 means no tumour, but the annotations {file} show some: correct the label or the "
                "annotations; if they outline something else, name the classes that are tumour (`tumour_classes`)"
            )
        if num_classes == 2 and record.get("label") and mask.is_empty:
            raise ValueError(
                f"label {record['label']} means tumour, but the annotations {file} show none: correct the "
                "label or the annotations (cells and other QuPath objects that are not annotations do not count)"
            )
        if record.get("manifest") is not None:
            _check_only_class(record["manifest"], Path(file), mask.only_class)
    return read_mask_region(file, xy, size_px, image_size_px, downsample, image_path, meaning, mpp)


class _ClassOfFile(NamedTuple):
    """The only class of an annotation file as it was at a time."""

    name: str
    path: Path
    modified_ns: int


@functools.lru_cache(maxsize=_MAX_MANIFESTS)
def _first_of_manifest(manifest: str) -> list[_ClassOfFile]:
    """The first annotation file of a manifest that this process has read, in a list that is empty until then."""
    return []


def _check_only_class(manifest: str, path: Path, name: str | None) -> None:
    """See that the annotation files of a manifest, each of one class that is not named, are all of the same."""
    if name is None:
        return
    found = _ClassOfFile(name, path, path.stat().st_mtime_ns)
    kept = _first_of_manifest(manifest)
    if kept and plain_name(kept[0].name) != plain_name(name) and _is_as_it_was(kept[0]):
        raise ValueError(
            f"the annotations {path} are of the class {name or UNCLASSIFIED}, those of {kept[0].path} of "
            f"{kept[0].name or UNCLASSIFIED}: name the classes that are tumour in the manifest's column "
            "`tumour_classes` (several with | between them), or with the key or option of that name"
        )
    kept[:] = [found]


def _is_as_it_was(file: _ClassOfFile) -> bool:
    return file.path.is_file() and file.path.stat().st_mtime_ns == file.modified_ns


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
