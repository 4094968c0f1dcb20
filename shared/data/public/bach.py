"""BACH, the breast-cancer challenge of ICIAR 2018, as it is unpacked: labelled photos (part A), annotated slides (part B).

::

    ICIAR2018_BACH_Challenge/
        Photos/microscopy_ground_truth.csv    no header: n001.tif,Normal
        Photos/{Normal,Benign,InSitu,Invasive}/{n,b,is,iv}001.tif ...    2048 x 1536 px, 0.42 um per pixel
        WSI/A01.svs, A01.xml ... A10.svs, A10.xml    annotated in ImageScope, 0.467 um per pixel
        WSI/*.svs                                    others, without annotations
        WSI/thumbnails, WSI/gt_thumbnails            not used

Published at https://zenodo.org/records/3632035 (CC BY-NC-ND 4.0); Aresta et al., Medical Image Analysis 2019.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ...wsi.slide import Slide
from ..problems import Problems, first_names
from ..record import Record
from .bach_annotations import imagescope_mpp, write_bach_annotations

# In the order of `BACH_CLASSES`.
PHOTO_FOLDERS = ("Normal", "Benign", "InSitu", "Invasive")
PHOTO_MPP, SLIDE_MPP = 0.42, 0.467
PHOTO_SIZE_PX = (2048, 1536)
PHOTOS_A_CLASS, ANNOTATED_SLIDES = 100, 10
# The paper does not name its slides; the scores that it quotes are of networks that were trained on these. Each of its runs is
# validated on another of the other slides.
TRAINING_SLIDES, VALIDATION_SLIDES = ("A01", "A02", "A03"), ("A04",)
# The results in the released code (exp_results.csv) are of the seven slides that are not these three; the first of its runs was
# validated on "WSI#2".
TRAINING_SLIDES_WITH_A08, VALIDATION_SLIDES_WITH_A08 = ("A01", "A06", "A08"), ("A02",)
ROOT_FOLDER = "ICIAR2018_BACH_Challenge"
_GROUND_TRUTH = "microscopy_ground_truth.csv"


def bach_photos(source: str | Path, allow_missing: bool = False) -> tuple[list[Record], list[str]]:
    """The labelled photos of part A: training data, as in the paper.

    Args:
        source: folder that holds ``Photos``, or the one above it.
        allow_missing: leave out photos that are in the table or in a folder only, instead of raising.

    Returns:
        Records of whole images with ``mpp``, ``label`` and ``split``, by class and name; and remarks on what differs from the
        published data. Without the table the folders are the labels, and a remark says so.

    Raises:
        ValueError: naming the files, for photos without a label or labels without a photo, contradictions, a photo in two
            folders, or a file that is no image.
    """
    folder = _part(source, "Photos")
    photos: dict[str, tuple[Path, int]] = {}
    for label, name in enumerate(PHOTO_FOLDERS):
        for path in sorted((folder / name).glob("*.tif*")):
            first = path if path.name.startswith(".") else photos.setdefault(path.name, (path, label))[0]
            if first != path:
                raise ValueError(f"{path} exists twice, also as {first}: keep one of them")
    if not photos:
        raise ValueError(f"{folder} contains no photos: expected {', '.join(PHOTO_FOLDERS)} with *.tif in them")
    remarks = []
    table = folder / _GROUND_TRUTH
    labels = _photo_labels(table) if table.is_file() else {name: label for name, (_, label) in photos.items()}
    if not table.is_file():
        remarks.append(f"{table} is missing: labels are taken from the folders")
    for name in sorted(photos.keys() & labels.keys()):
        path, label = photos[name]
        if labels[name] != label:
            raise ValueError(f"{path} is {PHOTO_FOLDERS[labels[name]]} in {table}")
    problems = Problems()
    problems.add(f"photos without a label in {table}", *sorted(photos.keys() - labels.keys()))
    problems.add(f"photos of {table} not found in {folder}", *sorted(labels.keys() - photos.keys()))
    remarks += problems.report(folder, allow_missing)
    kept = [photos[name] for name in photos if name in labels]
    other_sizes = _photos_of_other_size([path for path, _ in kept])
    if other_sizes:
        remarks.append(
            f"{len(other_sizes)} photos are not of {PHOTO_SIZE_PX[0]} x {PHOTO_SIZE_PX[1]} px: {first_names(other_sizes)}"
        )
    counts = Counter(label for _, label in kept)
    for label, name in enumerate(PHOTO_FOLDERS):
        if counts[label] != PHOTOS_A_CLASS:
            remarks.append(f"{counts[label]} photos of {name}, {PHOTOS_A_CLASS} were published")
    records: list[Record] = [
        {"image": str(path.resolve()), "mpp": PHOTO_MPP, "label": label, "split": "train"} for path, label in kept
    ]
    return records, remarks


def bach_slides(
    source: str | Path,
    annotations: str | Path,
    train: Sequence[str] = TRAINING_SLIDES,
    val: Sequence[str] = VALIDATION_SLIDES,
    allow_missing: bool = False,
) -> tuple[list[Record], list[str]]:
    """The annotated slides of part B, each with its annotations as mask.

    Args:
        source: folder that holds ``WSI``, or the one above it.
        annotations: folder to write ``<slide>.geojson`` to, see `write_bach_annotations`.
        train: names of the training slides.
        val: names of the validation slides; all others are tested on.
        allow_missing: leave out slides of which the SVS or the XML is missing, instead of raising.

    Returns:
        Records with ``mask``, ``label`` (the most severe class that is annotated), ``case_id`` and ``split``, by name; and
        remarks. ``mpp`` is set for slides that do not carry it: that of the XML, else the published one.

    Raises:
        ValueError: naming the file, for what is missing, a slide that cannot be read, or annotations of unknown classes or none;
            for names in `train` and `val` that are no annotated slides, or are in both.
    """
    folder = _part(source, "WSI")
    slides, outlines = (
        {path.stem: path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")}
        for pattern in ("*.[sS][vV][sS]", "*.[xX][mM][lL]")
    )
    wanted = {f"A{number:02}" for number in range(1, ANNOTATED_SLIDES + 1)} | outlines.keys()
    problems = Problems()
    problems.add(f"slides (.svs) not found in {folder}", *sorted(wanted - slides.keys()))
    problems.add(f"slides without .xml in {folder}", *sorted((wanted & slides.keys()) - outlines.keys()))
    remarks = problems.report(folder, allow_missing)
    if slides.keys() - wanted:
        remarks.append(f"{len(slides.keys() - wanted)} slides without annotations left out (20 were published)")
    names = sorted(slides.keys() & outlines.keys())
    splits = _slide_splits(names, train, val, folder)
    records: list[Record] = []
    for name in tqdm(names, desc="annotations", unit="slide", disable=None):
        mask = Path(annotations).resolve() / f"{name}.geojson"
        with Slide(slides[name]) as slide:
            classes = write_bach_annotations(outlines[name], mask, slide.qupath_origin_px)
            mpp = None if slide.has_mpp else imagescope_mpp(outlines[name]) or SLIDE_MPP
        record: Record = {"image": str(slides[name].resolve()), "mpp": mpp, "label": max(classes), "mask": str(mask)}
        records.append({**record, "case_id": name, "split": splits[name]})
    return records, remarks


def _slide_splits(names: Sequence[str], train: Sequence[str], val: Sequence[str], folder: Path) -> dict[str, str]:
    for split, chosen in (("train", train), ("val", val)):
        unknown = sorted(set(chosen) - set(names))
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)} of the {split} slides are not among the annotated slides of {folder}: {', '.join(names)}"
            )
    both = sorted(set(train) & set(val))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both training and validation slides")
    return {name: "train" if name in train else "val" if name in val else "test" for name in names}


def _part(source: str | Path, part: str) -> Path:
    """The folder of a part of the challenge."""
    folders = [Path(source) / part, Path(source) / ROOT_FOLDER / part]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise ValueError(f"{source} contains no folder {part!r}: give the unpacked {ROOT_FOLDER}")


def _photo_labels(table: Path) -> dict[str, int]:
    """Class index of each photo in the challenge's table."""
    labels: dict[str, int] = {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            place = f"{table}, row {number}"
            if len(cells) < 2 or cells[1] not in PHOTO_FOLDERS:
                raise ValueError(f"{place}: expected a photo and one of {', '.join(PHOTO_FOLDERS)}, got {','.join(cells)}")
            label = PHOTO_FOLDERS.index(cells[1])
            if labels.setdefault(cells[0], label) != label:
                raise ValueError(f"{place}: {cells[0]} is {cells[1]} here and {PHOTO_FOLDERS[labels[cells[0]]]} above")
    return labels


def _photos_of_other_size(paths: Sequence[Path]) -> list[str]:
    """Names of the photos that do not have the published size; each is opened, none decoded."""
    others = []
    for path in tqdm(paths, desc="photos", unit="photo", disable=None):
        with Slide(path, mpp=PHOTO_MPP) as photo:
            if photo.size_px != PHOTO_SIZE_PX:
                others.append(path.name)
    return others
