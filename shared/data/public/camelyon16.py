"""CAMELYON16, slides of sentinel lymph nodes with and without breast-cancer metastases, as it is published.

::

    training/normal/normal_001.tif ... normal_160.tif      159 slides
    training/tumor/tumor_001.tif ... tumor_111.tif         111 slides
    training/lesion_annotations/tumor_001.xml ...          lesions as ASAP XML
    testing/images/test_001.tif ... test_130.tif           129 slides
    testing/lesion_annotations/test_001.xml ...            of the 49 with tumour
    testing/reference.csv                                  no header: test_001,Tumor,IDC,Macro

Slides and annotations are known by their names, wherever below the folder they lie, so that the other layouts in which the
data set is mirrored (``images/`` and ``annotations/`` side by side) do too. In the annotations the groups ``_0`` and ``_1`` are
tumour, ``_2`` is cut out of them.

Published at https://camelyon17.grand-challenge.org/Data (CC0); Litjens et al., GigaScience 2018; Ehteshami Bejnordi et al.,
JAMA 2017.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from ...wsi.annotations.annotation import Annotation
from ...wsi.annotations.reading import read_annotations
from ...wsi.slide import Slide
from ..problems import Problems, first_names
from ..record import Record
from ..record_masks import join_names, read_record_mask
from .releases import PublishedData

PUBLISHED = {"training, normal": 159, "training, tumour": 111, "testing, normal": 80, "testing, tumour": 49}
# README.md of the data set. The first two are in early copies only.
REMOVED = {
    "normal_086": "mislabelled, published again as tumor_111",
    "test_049": "a copy of another slide",
    "test_114": "not all of its tumour is annotated",
}
UNPUBLISHED = ("normal_086", "test_049")
# There, too: "there might be tumor areas in these slides which have not been annotated".
PARTLY_ANNOTATED = frozenset(
    f"tumor_{number:03}" for number in (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)
)
GROUPS = ("_0", "_1", "_2")
_SLIDE = re.compile(r"(normal|tumor|test)_(\d{1,3})\.tiff?", re.IGNORECASE)
_ANNOTATIONS = re.compile(r"(tumor|test)_(\d{1,3})\.xml", re.IGNORECASE)
_NUMBERS = {"normal": 160, "tumor": 111, "test": 130}
_LABELS = {"normal": 0, "tumor": 1}
# Masks may have the names of their slides.
_OTHER_FOLDERS = re.compile(r"mask|background|ground.?truth|evaluation", re.IGNORECASE)


def camelyon16_slides(source: str | Path, allow_missing: bool = False, slide_mpp: float | None = None) -> PublishedData:
    """The slides, each with its label, and those with tumour with their annotations as mask.

    Args:
        source: the unpacked data set.
        allow_missing: leave out what is missing or cannot be read, instead of raising; without ``reference.csv`` the test
            slides that are annotated are the ones with tumour.
        slide_mpp: micrometres per level-0 pixel of slides that do not say.

    Returns:
        Records by name, with ``case_id`` (the name) and the official ``split``, train or test; no slide is for validation.

    Raises:
        ValueError: naming all files at once that are missing, twice there, cannot be read or contradict each other.
    """
    source = Path(source)
    if not source.is_dir():
        raise ValueError(f"the folder {source} does not exist: give the unpacked CAMELYON16")
    problems = Problems()
    slides, annotations = _files(source, _SLIDE), _files(source, _ANNOTATIONS)
    problems.add("slides not found", *(name for name in _published_names() if name not in slides))
    labels = _labels(source, slides, annotations, problems)
    names = [name for name in slides if name in labels and name not in REMOVED]
    without = [name for name in names if labels[name] and name not in annotations]
    problems.add("slides with tumour without annotations (.xml)", *without)
    groups: dict[str, list[str]] = defaultdict(list)
    records: list[Record] = []
    for name in tqdm([name for name in names if name not in without], desc="slides", unit="slide", disable=None):
        record: Record = {"image": str(slides[name]), "label": labels[name], "mask": None}
        try:
            record["mpp"] = _checked_mpp(slides[name], slide_mpp)
            if labels[name]:
                record["mask"], record["tumour_classes"] = str(annotations[name]), _tumour_classes(annotations[name])
                for group in _checked_groups(record, annotations[name]):
                    groups[group].append(name)
        except ValueError as error:
            problems.add("slides that cannot be used", error)
            continue
        records.append({**record, "case_id": name, "split": "test" if name.startswith("test") else "train"})
    remarks = [f"left out {name}: {why}" for name, why in REMOVED.items() if name in slides]
    remarks += problems.report(source, allow_missing)
    remarks += [f"areas of group {group!r} count as tumour: {first_names(groups[group])}" for group in sorted(groups)]
    if not records:
        raise ValueError(f"{source} contains no usable slide of CAMELYON16: " + "; ".join(remarks))
    found = Counter(_part(name, labels[name]) for name in slides if name in labels and name not in UNPUBLISHED)
    return PublishedData(records, dict(found), PUBLISHED, remarks)


def _published_names() -> list[str]:
    names = [f"{kind}_{number:03}" for kind, count in _NUMBERS.items() for number in range(1, count + 1)]
    return [name for name in names if name not in REMOVED]


def _files(source: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    """Files by the name of their slide, such as ``tumor_001``; absolute, links not followed."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(source.resolve().rglob("*")):
        match = pattern.fullmatch(path.name)
        folders = path.relative_to(source.resolve()).parts[:-1]
        if match and path.is_file() and not any(_OTHER_FOLDERS.search(folder) for folder in folders):
            found[f"{match[1].lower()}_{int(match[2]):03}"].append(path)
    twice = [" and ".join(map(str, paths)) for paths in found.values() if len(paths) > 1]
    if twice:
        raise ValueError(f"{len(twice)} files exist twice, keep one of each: {first_names(twice)}")
    return {name: paths[0] for name, paths in sorted(found.items())}


def _labels(source: Path, slides: Mapping[str, Path], annotations: Mapping[str, Path], problems: Problems) -> dict[str, int]:
    """Label of each slide, where it has one."""
    labels = {name: _LABELS[kind] for name in slides if (kind := name.split("_")[0]) in _LABELS}
    tests = [name for name in slides if name not in labels]
    tables = [path for path in sorted(source.rglob("*")) if path.name.lower() == "reference.csv"]
    if not tables:
        # Used only where that is allowed: nothing better is available then.
        problems.add("file not found, so the annotated test slides are taken as those with tumour", "testing/reference.csv")
        return labels | {name: int(name in annotations) for name in tests}
    in_table = _read_reference(tables[0])
    unlabelled = [name for name in tests if name not in in_table and name not in REMOVED]
    problems.add(f"test slides without a label in {tables[0]}", *unlabelled)
    normal = [name for name in tests if in_table.get(name) == 0]
    contradicting = [name for name in normal if name in annotations and _tumour(annotations[name])]
    problems.add(f"test slides that are Normal in {tables[0]} but have tumour in their annotations", *contradicting)
    return labels | {name: in_table[name] for name in tests if name in in_table and name not in contradicting}


def _read_reference(table: Path) -> dict[str, int]:
    """Label by slide."""
    labels: dict[str, int] = {}
    rows: dict[str, int] = {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            cells = [cell.strip().lower() for cell in row]
            if not any(cells):
                continue
            match = _SLIDE.fullmatch(cells[0].removesuffix(".tif") + ".tif")
            if number == 1 and not match:
                continue  # some mirrors have a header
            label = _LABELS.get(cells[1]) if len(cells) > 1 else None
            if not match or label is None:
                raise ValueError(f"{table}, row {number}: expected a slide and Tumor or Normal, got {','.join(row)}")
            name = f"{match[1]}_{int(match[2]):03}"
            if name in rows:
                raise ValueError(f"{table}, row {number}: {name} is already in row {rows[name]}: keep one of them")
            labels[name], rows[name] = label, number
    return labels


def _checked_mpp(path: Path, slide_mpp: float | None) -> float | None:
    """The pixel size to write into the manifest: None for a slide that states it itself."""
    with Slide(path) as slide:
        if slide.has_mpp:
            return None
    if slide_mpp is None:
        raise ValueError(f"{path} does not state its pixel size: give slide_mpp")
    return slide_mpp


def _tumour_classes(mask: Path) -> str | None:
    """The classes of an annotation file that are tumour: all that is not an exclusion, whatever its group.

    Raises:
        ValueError: if there is no tumour in it.
    """
    tumour = _tumour(mask)
    if not tumour:
        raise ValueError(f"no tumour is drawn in {mask}")
    return join_names(sorted({area.class_name for area in tumour}))


def _checked_groups(record: Record, mask: Path) -> set[str]:
    """The groups of tumour that are not among the published ones.

    Raises:
        ValueError: for annotations that training would refuse.
    """
    with Slide(record["image"]) as slide:
        read_record_mask(record, (0, 0), 1, slide.size_px)
    return {area.group for area in _tumour(mask)} - set(GROUPS)


def _tumour(mask: Path) -> list[Annotation]:
    return [area for area in read_annotations(mask) if not area.is_exclusion]


def _part(name: str, label: int) -> str:
    return f"{'testing' if name.startswith('test') else 'training'}, {'tumour' if label else 'normal'}"
