"""GlaS (Warwick-QU), glands of the colon, as it is unpacked: images, annotated glands, and a table of grades and patients.

::

    Warwick_QU_Dataset/
        Grade.csv    name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015); blanks around headers and cells
        train_1.bmp ... testA_1.bmp ... testB_1.bmp ...              20x, 0.62005 um per pixel, most of 775 x 522 px
        train_1_anno.bmp ... testA_1_anno.bmp ... testB_1_anno.bmp   0 outside glands, else the gland's number

The official parts share patients. Published at https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest (for research only);
Sirinukunwattana et al., Medical Image Analysis 2017.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..labels.class_masks import object_classes, write_class_mask
from ..patches.image_regions import image_regions, window_of
from ..problems import Problems, first_names
from ..record import Record, label_of
from ..splits import assign_splits
from .releases import PublishedData, images_of

# Index 0 is what is no gland. The grade is the image's, and with it that of all its glands.
GLAS_CLASSES = ("background", "benign gland", "malignant gland")
GRADES = {"benign": 1, "malignant": 2}
PUBLISHED_IMAGES = {"train": 85, "testA": 60, "testB": 20}
PUBLISHED_PATIENTS = 16
MPP = 0.62005
_TABLE, _ANNOTATION = "Grade.csv", "_anno"
_COLUMNS = ("name", "patient ID", "grade (GlaS)")
# Of the training images of the official split, for which the owners name no validation images.
_TRAINING_SHARES = (0.8, 0.2, 0.0)


def glas(
    source: str | Path,
    masks: str | Path,
    size_px: int = 416,
    official: bool = False,
    allow_missing: bool = False,
    seed: int = 0,
) -> PublishedData:
    """Regions of the images of GlaS, of one size, with the classes of `GLAS_CLASSES`.

    Args:
        source: folder with ``Grade.csv`` and the images, or the one above it.
        masks: folder to write ``<image>.png`` to, masks of indices in `GLAS_CLASSES`.
        size_px: side of a region (`image_regions`); smaller images are left out.
        official: keep the official test images apart, which share patients with the training images, so that records have no
            ``case_id``; else patients are dealt out 65/15/20, those of the same grades alike (`assign_splits`).
        allow_missing: leave out images without a grade or an annotation, and grades or annotations without an image.
        seed: of the split.

    Returns:
        Records by name, with ``mpp``, ``label`` (1 benign, 2 malignant), ``mask``, ``split``, and, in addition to the
        manifest's columns, ``part`` (``train``, ``testA``, ``testB``) and ``published_mask``. Regions without any gland are
        left out.

    Raises:
        ValueError: naming file and row, for what is missing, contradicts itself, or cannot be read.
    """
    folder = _folder(source)
    images = images_of(folder)
    annotations = {stem.removesuffix(_ANNOTATION): images.pop(stem) for stem in list(images) if stem.endswith(_ANNOTATION)}
    grades = _read_grades(folder / _TABLE)
    data = PublishedData(published=PUBLISHED_IMAGES, found=dict.fromkeys(PUBLISHED_IMAGES, 0))
    unknown = [path.name for stem, path in images.items() if _part(stem) not in PUBLISHED_IMAGES]
    if unknown:
        raise ValueError(
            f"{folder} contains images that belong to no part of GlaS: {first_names(unknown)}; expected train_1, testA_1, "
            "testB_1, ..."
        )
    for stem in images:
        data.found[_part(stem)] += 1
    problems = Problems()
    problems.add(f"images without a row in {folder / _TABLE}", *sorted(images.keys() - grades.keys()))
    problems.add(f"rows of {folder / _TABLE} without an image", *sorted(grades.keys() - images.keys()))
    problems.add("images without an annotation", *sorted(images.keys() - annotations.keys()))
    problems.add("annotations without an image", *sorted(annotations.keys() - images.keys()))
    data.remarks += problems.report(folder, allow_missing)
    kept = sorted(images.keys() & grades.keys() & annotations.keys(), key=_place)
    whole: list[Record] = []
    for stem in kept:
        patient, grade = grades[stem]
        record: Record = {"image": str(images[stem]), "mpp": MPP, "label": GRADES[grade], "case_id": patient, "part": _part(stem)}
        whole.append({**record, "published_mask": str(annotations[stem])})
    _fill_splits(whole, data, official, seed)
    data.records = _regions(whole, Path(masks).resolve(), size_px, data)
    return data


def glas_malignancy(records: Sequence[Record]) -> list[Record]:
    """Records of malignant (1) and benign (0) regions from those of `glas`; a malignant one's mask is the published one."""
    is_malignant = [record["label"] == GRADES["malignant"] for record in records]
    return [
        {**record, "label": int(malignant), "mask": record["published_mask"] if malignant else None}
        for record, malignant in zip(records, is_malignant, strict=True)
    ]


def _folder(source: str | Path) -> Path:
    source = Path(source)
    found = sorted([*source.glob(_TABLE), *source.glob(f"*/{_TABLE}")])
    if not found:
        raise ValueError(f"{source} contains no {_TABLE}: give the unpacked Warwick_QU_Dataset")
    return found[0].parent


def _part(stem: str) -> str:
    return stem.rpartition("_")[0]


def _place(stem: str) -> tuple[int, int, str]:
    """train_2 before train_10, and both before testA_1."""
    part, _, number = stem.rpartition("_")
    return list(PUBLISHED_IMAGES).index(part), int(number) if number.isdigit() else 0, stem


def _read_grades(table: Path) -> dict[str, tuple[str, str]]:
    """Patient and grade of each image in the table."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    header = rows[0] if rows else []
    if not {*_COLUMNS} <= {*header}:
        raise ValueError(f"{table}: expected the columns {', '.join(_COLUMNS)}, got {', '.join(header) or 'none'}")
    places = [header.index(name) for name in _COLUMNS]
    grades: dict[str, tuple[str, str]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        name, patient, grade = (row[place] if place < len(row) else "" for place in places)
        if not name or not patient or grade.casefold() not in GRADES:
            raise ValueError(
                f"{table}, row {number}: expected an image, a patient and one of {', '.join(GRADES)}, got {', '.join(row)}"
            )
        if name in grades:
            raise ValueError(f"{table}, row {number}: {name} occurs twice")
        grades[name] = patient, grade.casefold()
    return grades


def _fill_splits(records: list[Record], data: PublishedData, official: bool, seed: int) -> None:
    parts: dict[str, set[str]] = defaultdict(set)
    for record in records:
        parts[record["case_id"] or ""].add(record["part"])
    data.remarks.append(f"{len(parts)} patients ({PUBLISHED_PATIENTS} were published)")
    shared = sum("train" in of and len(of) > 1 for of in parts.values())
    if not official:
        assign_splits(records, seed=seed)
        if shared:
            data.remarks.append(
                f"{shared} patients have both training and test images in the official split, which is therefore not used"
            )
        return
    assign_splits([record for record in records if record["part"] == "train"], _TRAINING_SHARES, seed)
    for record in records:
        if record["part"] != "train":
            record["split"] = "test"
    if shared:
        data.remarks.append(f"{shared} patients are on both sides of the official split, so no case is named")
        for record in records:
            record["case_id"] = None


def _regions(images: Sequence[Record], masks: Path, size_px: int, data: PublishedData) -> list[Record]:
    regions: list[Record] = []
    small: list[str] = []
    num_empty = 0
    for record in tqdm(images, desc="masks", unit="image", disable=None):
        name = Path(record["image"]).stem
        mask = masks / f"{name}.png"
        indices = write_class_mask(record["published_mask"], mask, object_classes(label_of(record)))
        record["mask"] = str(mask)
        own = image_regions(record, indices.shape[::-1], size_px)
        small += [] if own else [name]
        kept = [region for region in own if np.any(window_of(region, indices))]
        num_empty += len(own) - len(kept)
        regions += kept
    if small:
        data.remarks.append(f"left out {len(small)} images with a side below {size_px} px: {first_names(small)}")
    if num_empty:
        data.remarks.append(f"left out {num_empty} regions of {size_px} px without any gland")
    return regions
