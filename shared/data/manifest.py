"""The manifest: one CSV format for tiles, slide regions and whole slides, with whichever weak labels exist.

Columns (docs/data.md): ``image``; optional region ``x, y`` (level-0 pixels) with ``width_um, height_um`` or
``width_px, height_px`` (level-0 pixels); ``mpp`` (of level 0, for files that do not carry it); labels ``label``, ``area``,
``mask`` (an image, or an annotation file of ImageScope, ASAP or QuPath: see `read_mask_region`), and of annotation files
``tumour_classes`` (several with | between them) and ``annotation_frame``; ``case_id`` and ``split``; ``group`` and
``location``, any words: what is scored apart within a split. Paths are relative to the CSV.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..writers.atomic import atomic_path
from ..wsi.annotations.annotation_file import is_annotation_file
from ..wsi.annotations.frames import ANNOTATION_FRAMES
from ..wsi.formats import is_plain_picture
from ..wsi.slide_pool import open_slide
from ..wsi.spacing import STATED_RANGE, is_possible_spacing
from .record import Record, label_of
from .record_masks import join_names
from .splits import SPLITS, assign_folds, assign_splits, left_for_folds, rotate_validation, why_empty

# In the order on disk.
COLUMNS = ["image", "x", "y", "width_um", "height_um", "width_px", "height_px", "mpp", "label", "area", "mask"]
COLUMNS += ["tumour_classes", "annotation_frame", "case_id", "split", "group", "location"]
# What other programs call these columns. One that is passed over would go unnoticed, and patients would be in two splits.
OTHER_NAMES = {
    "case_id": ("case", "case_submitter_id", "patient", "patient_id", "subject", "subject_id"),
    "mask": ("mask_path",),
    "split": ("dataset_split", "partition", "subset"),
}
REGION = ("x", "y", "width_px", "height_px")


def load_manifest(
    path: str | Path,
    split: str | None = None,
    require: Sequence[str] = ("label",),
    num_classes: int = 2,
    split_seed: int = 0,
    both_classes: bool = False,
    num_folds: int | None = None,
    fold: int | None = None,
    tile_mpp: float | None = None,
    check_files: bool = True,
    tumour_classes: str | Sequence[str] | None = None,
    annotation_frame: str | None = None,
    allow_empty: bool = False,
    validation_fold: bool = True,
    validation_case: str | int | None = None,
) -> list[Record]:
    """Read and check a manifest.

    Args:
        path: the CSV file.
        split: ``"train"``, ``"val"`` or ``"test"`` to return that part only; None for every row.
        require: label columns that every returned row must fill (``"label"``, ``"area"``, ``"mask"``); a row with label 0 needs
            no mask.
        num_classes: labels must be integers in ``[0, num_classes)``.
        split_seed: seed of the split that is made when the file has no ``split`` column, and of the folds.
        both_classes: demand images without (label 0) and with tumour: nothing can be learned from one class. Implies
            that ``"label"`` is required.
        num_folds: folds of a cross-validation, see `assign_folds`: its splits take the place of the file's. Cases with a row
            whose split is ``"test"`` in the file are in no fold and are not returned: they stay unseen. With `fold`.
        fold: which of them is the test split, from 0.
        tile_mpp: micrometres per pixel of PNG, JPEG and BMP images in rows without ``mpp``, so that they can be read coarser;
            None reads them as they are stored.
        check_files: False leaves missing images and masks to the code that opens them.
        tumour_classes: of annotation files, in rows without ``tumour_classes``: the classes that are tumour, see
            `read_record_mask`.
        annotation_frame: of annotation files, in rows without ``annotation_frame``: ``qupath`` or ``level0``.
        allow_empty: return no record where the file has none of `split`, instead of raising.
        validation_fold: False trains on all folds but the one that is tested on; there is no val split then.
        validation_case: this case validates, and the other cases that do not train are tested on, see `rotate_validation`.

    Returns:
        The records of the rows, with every column; what a row leaves empty is None. ``image`` and ``mask`` are absolute paths
        (of links, not of what they point to); a region is in level-0 pixels, whatever its unit in the file.

    Raises:
        ValueError: for whatever is wrong, naming the file, the row, what was expected and what was found.
    """
    path = Path(path)
    rows = _read_rows(path)
    named_tumour = join_names(tumour_classes)
    records: list[Record] = []
    for row in rows:
        mask = row.cells["mask"]
        if mask is not None and is_annotation_file(mask):
            row.cells["tumour_classes"] = row.cells["tumour_classes"] or named_tumour
            row.cells["annotation_frame"] = row.cells["annotation_frame"] or annotation_frame
        record = _record(row, num_classes, check_files)
        if record["mpp"] is None and is_plain_picture(record["image"]):
            record["mpp"] = tile_mpp
        records.append(record)
    _check_duplicates(records, path)
    _check_agreement(records, path, "image", "case_id", "its patient would be in two splits")
    has_splits = any(record["split"] for record in records)
    if num_folds is not None and fold is not None:
        # A test case that is called otherwise would be dealt into the folds; an empty cell keeps no case back.
        _check_splits(records, path, (*SPLITS, None))
        try:
            records = left_for_folds(records)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    _fill_splits(records, path, split_seed, num_folds, fold, validation_fold)
    if validation_case is not None:
        try:
            rotate_validation(records, validation_case)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if split is not None:
        chosen = [record for record in records if record["split"] == split]
        if not chosen and not allow_empty:
            raise ValueError(f"{path} {why_empty(records, split, has_splits)}")
        records = chosen
    for record in records:
        _check_required(record, path, (*require, "label") if both_classes else require)
    if both_classes:
        _check_both_classes(records, path, split)
    return records


def assigns_splits(path: str | Path) -> bool:
    """Whether a manifest assigns any of its rows to a split, or leaves that to `load_manifest`.

    Raises:
        ValueError: if the file cannot be read.
    """
    return any(row.cells["split"] for row in _read_rows(Path(path)))


def write_manifest(records: Sequence[Record], path: str | Path, extra_columns: Sequence[str] = ()) -> None:
    """Write `records` as a manifest, image and mask paths absolute, under a temporary name that is then renamed.

    Columns that no record fills are left out; `extra_columns` are written after the manifest's own.
    """
    columns = [name for name in COLUMNS if any(record.get(name) is not None for record in records) or name == "image"]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, *extra_columns], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


@dataclass(frozen=True)
class _Row:
    """The cells of a row by their columns, None where they are empty, and its place."""

    path: Path
    number: int
    cells: dict[str, str | None]

    def error(self, what: str) -> ValueError:
        return ValueError(f"{self.path}, row {self.number}: {what}.")

    def file(self, name: str, check: bool) -> str | None:
        """The absolute path in a cell, of a link itself: in stores such as git-annex the name of its target says nothing."""
        text = self.cells[name]
        if text is None:
            return None
        file = self.path.parent / text
        if check and not file.is_file():
            raise self.error(f"{name} {text!r} is not a file ({file}); paths are relative to the CSV")
        return str(file.parent.resolve() / file.name)

    def value(self, name: str) -> float | None:
        text = self.cells[name]
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            raise self.error(f"{name} must be a number, got {text!r}") from None
        if not math.isfinite(value):
            raise self.error(f"{name} must be a finite number, got {text!r}")
        return value


def _read_rows(path: Path) -> list[_Row]:
    if not path.is_file():
        raise ValueError(f"the manifest {path} does not exist: give the path of a CSV file with a column 'image'.")
    try:
        rows = _cells(path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable CSV file (UTF-8, commas): {error}") from error
    if not rows:
        raise ValueError(f"{path} is empty: a manifest is a CSV file with a column 'image'.")
    header = rows.pop(0)[1]
    if "image" not in header:
        # CAMEL's authors publish their adenoma data set with this header.
        header = ["image" if name == "image_name" else name for name in header]
    _refuse_mistyped(header, path)
    if "image" not in header:
        raise ValueError(f"{path} has no column 'image'; its columns are: {', '.join(header)}.")
    for name in COLUMNS:
        if header.count(name) > 1:
            raise ValueError(f"{path} has {header.count(name)} columns {name!r}: keep one of them.")
    if not rows:
        raise ValueError(f"{path} has a header but no rows.")
    for number, cells in rows:
        if any(cells[len(header) :]):
            raise _Row(path, number, {}).error(
                f"{len(cells)} cells under a header of {len(header)}: put cells that contain commas in quotes"
            )
    # A row that ends early leaves the rest empty.
    named = [(number, dict(zip(header, cells, strict=False))) for number, cells in rows]
    return [_Row(path, number, {name: row.get(name) or None for name in COLUMNS}) for number, row in named]


def _refuse_mistyped(header: Sequence[str], path: Path) -> None:
    """Refuse a column such as Label, spilt or patient, which stands for one that is absent: what it holds would not be read."""
    others = {_letters(other): name for name, others in OTHER_NAMES.items() for other in others}
    meant_by = others | {_letters(name): name for name in COLUMNS}
    absent = {letters: name for letters, name in meant_by.items() if name not in header}
    for name in header:
        if name not in COLUMNS and _letters(name) in absent:
            meant = absent[_letters(name)]
            raise ValueError(
                f"{path} has a column {name!r} and no column {meant!r}: was {meant} meant? Rename it, or leave it out."
            )


def _letters(name: str) -> str:
    return "".join(sorted(filter(str.isalnum, name.lower())))


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """The number of the line on which each row begins, from 1, and its stripped cells; rows without any are left out."""
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        number = 1
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((number, cells))
            number = reader.line_num + 1
    return rows


def _record(row: _Row, num_classes: int, check_files: bool) -> Record:
    """The record of a row; whatever is wrong in it is a ValueError that names file and row."""
    if row.cells["image"] is None:
        raise row.error("the image is empty")
    image, mask = (row.file(name, check_files) for name in ("image", "mask"))
    values = {name: row.value(name) for name in ("x", "y", "width_um", "height_um", "width_px", "height_px", "mpp", "area")}
    label, area, mpp, frame = row.value("label"), values["area"], values["mpp"], row.cells["annotation_frame"]
    if label is not None and label not in range(num_classes):
        meaning = " (0 is normal, 1 is tumour; docs/choose.md has methods for more classes)" if num_classes == 2 else ""
        raise row.error(f"label must be one of 0..{num_classes - 1}, got {label:g}{meaning}")
    if area is not None and not 0 <= area <= 1:
        raise row.error(f"area must be a share between 0 and 1, got {area:g}")
    if mpp is not None and not is_possible_spacing(mpp):
        found = f"{mpp:g}; is it in another unit?"
        raise row.error(f"mpp must be a number of micrometres per pixel above 0 ({STATED_RANGE}), got {found}")
    if frame not in (*ANNOTATION_FRAMES, None):
        raise row.error(f"annotation_frame must be one of {', '.join(ANNOTATION_FRAMES)}, got {frame!r}")
    x, y, width_px, height_px = _region(row, values, str(image)) or (None, None, None, None)
    return {
        "image": str(image),
        "x": x,
        "y": y,
        "width_um": None,
        "height_um": None,
        "width_px": width_px,
        "height_px": height_px,
        "mpp": mpp,
        "label": None if label is None else int(label),
        "area": area,
        "mask": mask,
        "tumour_classes": row.cells["tumour_classes"],
        "annotation_frame": frame,
        "case_id": row.cells["case_id"],
        "split": row.cells["split"],
        "group": row.cells["group"],
        "location": row.cells["location"],
        "manifest": str(row.path),
        "row": row.number,
    }


def _region(row: _Row, values: Mapping[str, float | None], image: str) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) in level-0 pixels; None for a row that is a whole image."""
    size_um, size_px = (_size(row, values, unit) for unit in ("um", "px"))
    x, y, size = values["x"], values["y"], size_px or size_um
    if (x is None) != (y is None) or (x is None) != (size is None):
        raise row.error("a region needs x, y and its size (width_px, height_px or width_um, height_um)")
    if x is None or y is None or size is None:
        return None
    if size_px and size_um:
        raise row.error("the size of a region is given either by width_px, height_px or by width_um, height_um, not by both")
    downsample = 1.0 if size_px else values["mpp"] or _file_mpp(row, image)
    width, height = (round(side / downsample) for side in size)
    if min(width, height) < 1:
        raise row.error(f"the region is smaller than a pixel: {width} x {height} px")
    return round(x), round(y), width, height


def _size(row: _Row, values: Mapping[str, float | None], unit: str) -> tuple[float, float] | None:
    width, height = values[f"width_{unit}"], values[f"height_{unit}"]
    if (width is None) != (height is None) or any(size is not None and size <= 0 for size in (width, height)):
        raise row.error(f"width_{unit} and height_{unit} must both be given and above 0, got {[width, height]}")
    return None if width is None or height is None else (width, height)


def _file_mpp(row: _Row, image: str) -> float:
    try:
        return open_slide(image).mpp
    except ValueError as error:
        raise row.error(str(error)) from error


def _fill_splits(
    records: Sequence[Record], path: Path, seed: int, num_folds: int | None, fold: int | None, validation_fold: bool
) -> None:
    """Check the splits of the file, or make them."""
    if (num_folds is None) != (fold is None):
        raise ValueError(f"num_folds and fold must be given together; got num_folds={num_folds}, fold={fold}")
    if num_folds is not None and fold is not None:
        try:
            assign_folds(records, num_folds, fold, seed, validation_fold)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    elif any(record["split"] for record in records):
        _check_splits(records, path, SPLITS)
        # Regions of one slide are one patient's tissue too, whether or not a case is named.
        for name in ("case_id", "image"):
            _check_agreement(records, path, name, "split", "it must be in one split only, or the test is meaningless")
    else:
        assign_splits(records, seed=seed)


def _check_splits(records: Sequence[Record], path: Path, allowed: Sequence[str | None]) -> None:
    for record in records:
        if record["split"] not in allowed:
            raise _error(path, record, f"split must be one of {', '.join(SPLITS)}, got {record['split']!r}")


def _check_required(record: Record, path: Path, require: Sequence[str]) -> None:
    for name in require:
        if record.get(name) is None and name == "mask" and record["label"] == 0:
            continue  # an image without tumour: its mask is known
        if record.get(name) is None:
            which = "image with tumour" if name == "mask" else "image"
            needed = f"the column {name!r} is empty or missing, and this run needs it for every {which}"
            raise _error(path, record, f"{needed} of the split {record['split']!r}{_without_masks(name, record)}")


def _without_masks(name: str, record: Record) -> str:
    scored = name == "mask" and record["split"] in ("val", "test")
    return (
        "; if there are no masks, give --truth '$None' to train.json or evaluate.json, and only labels are scored"
        if scored
        else ""
    )


def _check_duplicates(records: Sequence[Record], path: Path) -> None:
    seen: dict[tuple[Any, ...], Record] = {}
    for record in records:
        first = seen.setdefault((record["image"], *(record.get(name) for name in REGION)), record)
        if first is not record:
            where = f" (split {first['split']})" if first["split"] != record["split"] else ""
            raise _error(path, record, f"{record['image']} is already in row {first['row']}{where}: keep one of them")


def _check_both_classes(records: Sequence[Record], path: Path, split: str | None) -> None:
    labels = {int(label_of(record) > 0) for record in records}
    if labels != {0, 1}:
        present = ", ".join(str(label) for label in sorted(labels)) or "none"
        raise ValueError(
            f"{path}: the {split or 'whole'} split has {len(records)} rows of only one class (label {present}); this run needs "
            "images with label 0 and images with a label above 0."
        )


def _check_agreement(records: Sequence[Record], path: Path, name: str, of: str, reason: str) -> None:
    """Check that records with the same value of column `name` have the same value of column `of`, where they have both."""
    first: dict[object, Record] = {}
    for record in records:
        own, value = record.get(name), record.get(of)
        if own is None or value is None:
            continue
        other = first.setdefault(own, record)
        if other.get(of) != value:
            what = f"{name} {own!r} has {of} {value!r} here and {other.get(of)!r} in row {other['row']}: {reason}"
            raise _error(path, record, what)


def _error(path: Path, record: Record, what: str) -> ValueError:
    return ValueError(f"{path}, row {record['row']}: {what}.")
