"""The manifest: one CSV format for tiles, slide regions and whole slides, with whichever weak labels exist.

Columns (docs/data.md): ``image``; optional region ``x, y`` (level-0 pixels) with ``width_um, height_um`` or
``width_px, height_px`` (level-0 pixels); ``mpp`` (of level 0, for files that do not carry it); labels ``label``, ``area``,
``mask`` (an image, or an annotation file of ImageScope, ASAP or QuPath: see `read_mask_region`), and of annotation files
``tumour_classes`` (several with | between them) and ``annotation_frame``; ``case_id`` and ``split``; ``group`` and
``location``, any words: what is scored apart within a split. Paths are relative to the CSV.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..writers.atomic import atomic_path
from ..wsi.annotations.annotation_file import is_annotation_file
from ..wsi.annotations.frames import ANNOTATION_FRAMES
from ..wsi.file_names import comparable
from ..wsi.formats import is_plain_picture
from ..wsi.slide_pool import open_slide
from ..wsi.spacing import STATED_RANGE, is_possible_spacing
from .manifest_file import COLUMNS, ManifestFile, ManifestRow, read_manifest_file
from .record import Record, label_of
from .record_masks import join_names
from .splits import SPLITS, assign_folds, assign_splits, left_for_folds, rotate_validation, why_empty

REGION = ("x", "y", "width_px", "height_px")


def load_manifest(
    path: str | Path | ManifestFile,
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
        path: the CSV file, or what `read_manifest_file` has read of it.
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
        check_files: False opens no file: missing images and masks are left to the code that opens them, and regions in
            micrometres stay in this unit where their row has no ``mpp``.
        tumour_classes: of annotation files, in rows without ``tumour_classes``: the classes that are tumour, see
            `read_record_mask`.
        annotation_frame: of annotation files, in rows without ``annotation_frame``: ``qupath`` or ``level0``.
        allow_empty: return no record where the file has none of `split`, instead of raising.
        validation_fold: False trains on all folds but the one that is tested on; there is no val split then.
        validation_case: this case validates, and the other cases that do not train are tested on, see `rotate_validation`.

    Returns:
        The records of the rows, with every column; what a row leaves empty is None. ``image`` and ``mask`` are absolute paths
        (of links, not of what they point to); a region is in level-0 pixels, whatever its unit in the file (but see
        `check_files`).

    Raises:
        ValueError: for whatever is wrong, naming the file, the row, what was expected and what was found.
    """
    file = path if isinstance(path, ManifestFile) else read_manifest_file(path)
    path = file.path
    named_tumour = join_names(tumour_classes)
    records: list[Record] = []
    for row in file.rows:
        mask = row.cells["mask"]
        if mask is not None and is_annotation_file(mask):
            row.cells["tumour_classes"] = row.cells["tumour_classes"] or named_tumour
            row.cells["annotation_frame"] = row.cells["annotation_frame"] or annotation_frame
        record = _record(row, num_classes, check_files)
        if record["mpp"] is None and is_plain_picture(record["image"]):
            record["mpp"] = tile_mpp
        records.append(record)
    check_rows_agree(records, path)
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
    return any(row.cells["split"] for row in read_manifest_file(path).rows)


def stated_rows(file: ManifestFile) -> tuple[list[Record], list[dict[str, Any]]]:
    """The rows of a manifest as somebody has written them: no split is drawn, and no image or mask is opened or looked for.

    Returns:
        The records of the rows whose cells can be read, as those of `load_manifest` with ``check_files`` False, with labels of
        any number of classes; and what is wrong with each of the others: ``row``, ``image``, ``problem``.

    Raises:
        ValueError: if rows contradict each other, naming both.
    """
    records: list[Record] = []
    problems: list[dict[str, Any]] = []
    for row in file.rows:
        try:
            records.append(_record(row, 2**31, check_files=False))
        except ValueError as error:
            problem = str(error).removeprefix(f"{file.path}, row {row.number}: ").removesuffix(".")
            problems.append({"row": row.number, "image": row.file("image", check=False) or "", "problem": problem})
    check_rows_agree(records, file.path)
    if any(record["split"] for record in records):
        _check_stated_splits(records, file.path)
    return records, problems


def write_manifest(records: Sequence[Record], path: str | Path, extra_columns: Sequence[str] = ()) -> None:
    """Write `records` as a manifest, image and mask paths absolute, under a temporary name that is then renamed.

    Columns that no record fills are left out; `extra_columns` are written after the manifest's own.
    """
    columns = [name for name in COLUMNS if any(record.get(name) is not None for record in records) or name == "image"]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, *extra_columns], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def _record(row: ManifestRow, num_classes: int, check_files: bool) -> Record:
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
    record: Record = {
        "image": str(image),
        "x": None,
        "y": None,
        "width_um": None,
        "height_um": None,
        "width_px": None,
        "height_px": None,
        "mpp": mpp,
        "label": None if label is None else int(label),
        "area": area,
        "mask": mask,
        "tumour_classes": row.cells["tumour_classes"],
        "annotation_frame": frame,
        "case_id": _word(row, "case_id"),
        "split": row.cells["split"],
        "group": _word(row, "group"),
        "location": _word(row, "location"),
        "manifest": str(row.path),
        "row": row.number,
    }
    _fill_region(record, row, values, check_files)
    return record


def _word(row: ManifestRow, name: str) -> str | None:
    """A cell that is compared with those of other rows: a patient whose name is written in two ways would be in two splits."""
    text = row.cells[name]
    return None if text is None else comparable(text)


def _fill_region(record: Record, row: ManifestRow, values: Mapping[str, float | None], opens_files: bool) -> None:
    size_um, size_px = (_size(row, values, unit) for unit in ("um", "px"))
    x, y, size = values["x"], values["y"], size_px or size_um
    if (x is None) != (y is None) or (x is None) != (size is None):
        raise row.error("a region needs x, y and its size (width_px, height_px or width_um, height_um)")
    if x is None or y is None or size is None:
        return
    if size_px and size_um:
        raise row.error("the size of a region is given either by width_px, height_px or by width_um, height_um, not by both")
    record["x"], record["y"] = round(x), round(y)
    try:
        if size_px:
            record["width_px"], record["height_px"] = region_size_px(size)
        elif record["mpp"] is not None or opens_files:
            record["width_px"], record["height_px"] = region_size_px(size, record["mpp"] or open_slide(record["image"]).mpp)
        else:
            record["width_um"], record["height_um"] = size
    except ValueError as error:
        raise row.error(str(error)) from error


def region_size_px(size: tuple[float, float], mpp: float = 1.0) -> tuple[int, int]:
    """(width, height) of a region in level-0 pixels.

    Args:
        size: (width, height), in micrometres where `mpp` is given.
        mpp: micrometres per level-0 pixel.

    Raises:
        ValueError: if a side is less than half a pixel.
    """
    width, height = (round(side / mpp) for side in size)
    if min(width, height) < 1:
        raise ValueError(f"the region is smaller than a pixel: {width} x {height} px")
    return width, height


def _size(row: ManifestRow, values: Mapping[str, float | None], unit: str) -> tuple[float, float] | None:
    width, height = values[f"width_{unit}"], values[f"height_{unit}"]
    if (width is None) != (height is None) or any(size is not None and size <= 0 for size in (width, height)):
        raise row.error(f"width_{unit} and height_{unit} must both be given and above 0, got {[width, height]}")
    return None if width is None or height is None else (width, height)


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
        _check_stated_splits(records, path)
    else:
        assign_splits(records, seed=seed)


def _check_stated_splits(records: Sequence[Record], path: Path) -> None:
    _check_splits(records, path, SPLITS)
    # Regions of one slide are one patient's tissue too, whether or not a case is named.
    for name in ("case_id", "image"):
        _check_agreement(records, path, name, "split", "it must be in one split only, or the test is meaningless")


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


def check_rows_agree(records: Sequence[Record], path: Path) -> None:
    """Check that no image or region stands twice in a manifest, and that each image is of one case.

    Raises:
        ValueError: naming the file and both rows.
    """
    seen: dict[tuple[Any, ...], Record] = {}
    for record in records:
        first = seen.setdefault((record["image"], *(record.get(name) for name in (*REGION, "width_um", "height_um"))), record)
        if first is not record:
            where = f" (split {first['split']})" if first["split"] != record["split"] else ""
            raise _error(path, record, f"{record['image']} is already in row {first['row']}{where}: keep one of them")
    _check_agreement(records, path, "image", "case_id", "its patient would be in two splits")


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
