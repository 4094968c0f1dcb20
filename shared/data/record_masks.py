"""The masks of manifest records: how a mask is read is part of its row."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..wsi.annotations.annotation_classes import UNCLASSIFIED
from ..wsi.annotations.annotation_file import is_annotation_file
from ..wsi.annotations.mask_meaning import MaskMeaning
from ..wsi.annotations.reading import plain_name
from ..wsi.formats import is_plain_picture
from ..wsi.mask_region import image_mask_is_empty, open_annotation_mask, read_mask_region
from .record import Record

logger = logging.getLogger(__name__)

# A row's mask, and what says how it is to be read: to be passed on where a row becomes several.
MASK_COLUMNS = ("mask", "tumour_classes", "annotation_frame")
# Between the names of several classes in one cell.
NAMES_SEPARATOR = "|"
_MAX_MANIFESTS = 64
# What to do about a mask that contradicts label 0, and one that contradicts another label.
_ANNOTATION_REMEDIES = (
    "correct the label or the annotations; if they outline something else, name the classes that are tumour (`tumour_classes`)",
    "correct the label or the annotations (cells and other QuPath objects that are not annotations do not count)",
)
_IMAGE_REMEDIES = (
    "correct the label or the mask, which must be 0 wherever there is no tumour",
    "correct the label or the mask, which must not be 0 where there is tumour",
)
# A region in which no pixel was tumour when it was labelled may have a few when it is read at another pixel size.
_LARGEST_STRAY_SHARE = 0.05


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
            annotation file is read. Of two classes the label of a slide must agree with the mask: it is not 0 if there is some
            tumour in it, and 0 if there is none in the file. The mask of a record without a label is read whatever it shows, and
            for pictures see `check_region_mask`: they may be tiles that have the label of their slide.
        xy: top-left corner of the region in level-0 pixels.
        size_px: (width, height) or one side of the result.
        image_size_px: (width, height) of the image's level 0.
        downsample: level-0 pixels per pixel of the result.
        num_classes: classes of the mask.
        class_names: the class of each index in annotation files; takes the place of ``tumour_classes``.

    Returns:
        ``(height, width)`` class indices.

    Raises:
        ValueError: as `read_mask_region`; if the mask of an image of label 0 shows tumour, or that of another none, as far as
            what has been read of it tells; if nothing says which classes are tumour and another annotation file of the manifest
            was of another class. The caller names the row, see `record_error`.
    """
    file = record.get("mask")
    if file is None:
        raise ValueError("the column 'mask' is empty")
    tumour_classes, frame = split_names(record.get("tumour_classes")), record.get("annotation_frame")
    meaning = MaskMeaning(num_classes, class_names, tumour_classes, frame, needs_tumour=record.get("label") != 0)
    image_path, mpp = record["image"], record.get("mpp")
    if is_annotation_file(file):
        mask = open_annotation_mask(file, image_size_px, image_path, meaning, mpp)
        if num_classes == 2:
            _check_label(record, f"the annotations {file} show", mask.is_empty, _ANNOTATION_REMEDIES)
        if record.get("manifest") is not None:
            _check_only_class(record["manifest"], Path(file), mask.only_class)
        return read_mask_region(file, xy, size_px, image_size_px, downsample, image_path, meaning, mpp)
    region = read_mask_region(file, xy, size_px, image_size_px, downsample, image_path, meaning, mpp)
    if num_classes == 2 and record.get("label") is not None and not is_plain_picture(record["image"]):
        is_empty = False if region.any() else image_mask_is_empty(file, image_size_px, image_path, meaning)
        _check_label(record, f"the mask {file} shows", is_empty, _IMAGE_REMEDIES)
    return region


def _check_label(record: Record, shows: str, is_empty: bool | None, remedies: tuple[str, str]) -> None:
    """See that a row's label agrees with the whole file of its mask; of a region's label 0 the rest of a slide says nothing.

    Args:
        record: of a manifest.
        shows: begins the sentence that there is some tumour, or none, in the file.
        is_empty: whether there is none; None where this is not known.
        remedies: for label 0, and for another one.
    """
    label = record.get("label")
    if label == 0 and record.get("x") is None and is_empty is False:
        raise ValueError(f"label 0 means no tumour, but {shows} some: {remedies[0]}")
    if label and is_empty:
        raise ValueError(f"label {label} means tumour, but {shows} none: {remedies[1]}")


def check_region_mask(record: Record, mask: NDArray[np.uint8]) -> None:
    """See that the label of a region or a picture agrees with the mask of all of it, see `read_record_mask` for that of a slide.

    Args:
        record: of a manifest.
        mask: of two classes, all of the record's region.

    Raises:
        ValueError: if the label is 0 and more than 5 % is tumour. The caller names the row.
    """
    if record.get("label") != 0:
        return
    share = float(mask.mean())
    if share > _LARGEST_STRAY_SHARE:
        raise ValueError(
            f"label 0 means no tumour, but the mask {record.get('mask')} shows it on {share:.0%} of the "
            f"{'image' if record.get('x') is None else 'region'}: correct the label, or the mask, which must be 0 wherever there "
            "is no tumour"
        )


def without_label(record: Record) -> Record:
    """A record whose mask, if it is an image, is read whatever its label says: where the label is not that of the mask."""
    return record if is_annotation_file(record.get("mask") or "") else {**record, "label": None}


class DoubtfulMasks:
    """Rows whose masks do not show what their labels say, and which may be right all the same: counted, for one warning.

    A region or a tile that has its slide's label may show no tumour, and a lesion may be smaller than a pixel; one without
    tumour may touch some.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, bool], list[Record]] = {}

    def add(self, record: Record, has_tumour: bool) -> None:
        """Note a row of two classes, if it is to be doubted, by whether its mask shows tumour as it is read."""
        label = record.get("label")
        if record.get("mask") is not None and label is not None and (label > 0) != has_tumour:
            self._found.setdefault((record.get("manifest") or "", has_tumour), []).append(record)

    def warn(self) -> None:
        """Log what was found, of each manifest."""
        for (manifest, has_tumour), records in self._found.items():
            first, among = records[0], f"{manifest}: " if manifest else ""
            what = "label 0 and some tumour" if has_tumour else "a label above 0 and no tumour at the pixel size of the images"
            logger.warning(
                "%s%s with %s, the first of row %s (%s): used as they are; correct masks or labels if that is wrong",
                among,
                "the mask of 1 row" if len(records) == 1 else f"the masks of {len(records)} rows",
                what,
                first.get("row", "?"),
                first["mask"],
            )
        self._found.clear()


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
