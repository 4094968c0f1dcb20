"""The colorectal adenoma data of CAMEL's authors, as it is published: images of 1280 px and a table ``image_name,label``.

The images are cut out of 177 slides, 156 of them with adenoma; label 1 is adenoma. There are no masks, and neither a split nor
the slide of an image is published.

Published at https://github.com/ThoroughImages/CAMEL (no licence is named: ask the authors); Xu et al., ICCV 2019.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from ...wsi.file_names import comparable
from ..case_pattern import CasePattern
from ..problems import Problems
from ..record import Record
from ..splits import assign_splits
from .releases import IMAGE_SUFFIXES, PublishedData

ADENOMA_CLASSES = ("normal", "adenoma")
IMAGE_SIZE_PX = (1280, 1280)
_COLUMNS = ("image_name", "label")


class _Row(NamedTuple):
    """A row of the table; ``number`` is that of its line, the header being 1."""

    number: int
    name: str
    label: int


def adenoma_images(
    source: str | Path,
    table: str | Path | None = None,
    case_pattern: str | None = None,
    allow_missing: bool = False,
    seed: int = 0,
) -> PublishedData:
    """The labelled images, split 65/15/20 by label (`assign_splits`).

    Args:
        source: the unpacked data set; images may lie in folders of it.
        table: ``image_name,label``; None for the only one of the CSV files in `source` that has these columns.
        case_pattern: of the slide or patient, in the path of an image within `source` (`CasePattern`): a case goes to one split
            as a whole. None if the names do not show it.
        allow_missing: leave out what is missing, has another size or cannot be read, instead of raising.
        seed: of the split.

    Returns:
        Records of whole images in the order of the table; one that is not there by its name is looked for without its ending.

    Raises:
        ValueError: naming all files at once that are missing, without a label, or of another size; for a table that is none, or
            names an image twice.
    """
    source = Path(source)
    if not source.is_dir():
        raise ValueError(f"the folder {source} does not exist: give the unpacked data set")
    cases = None if case_pattern is None else CasePattern(case_pattern)
    table = _find_table(source) if table is None else Path(table)
    rows = _read_table(table)
    paths = [path for path in sorted(source.resolve().rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    by_name = _by_name(source.resolve(), paths)
    images = {row: _find(row, by_name, table) for row in rows}
    _check_once(images, table)
    problems = Problems()
    problems.add(f"images of {table} not found", *(row.name for row, path in images.items() if path is None))
    labelled = set(images.values())
    problems.add(f"images without a label in {table}", *(path.name for path in paths if path not in labelled))
    records: list[Record] = []
    for row, path in tqdm(images.items(), desc="images", unit="image", disable=None):
        if path is None:
            continue
        try:
            _check_size(path)
            case = cases.case_of(path.relative_to(source.resolve()).as_posix()) if cases else None
            records.append({"image": str(path), "label": row.label, "case_id": case})
        except ValueError as error:
            problems.add("images that cannot be used", error)
    remarks = problems.report(source, allow_missing)
    if not records:
        raise ValueError(f"{table} lists no usable image: " + "; ".join(remarks))
    if cases is None:
        remarks.append("images of one slide cannot be recognised and may be in several splits (give a case_pattern)")
    assign_splits(records, seed=seed)
    counts = Counter(record["label"] for record in records)
    return PublishedData(records, {name: counts[label] for label, name in enumerate(ADENOMA_CLASSES)}, {}, remarks)


def _find_table(source: Path) -> Path:
    tables = [path for path in sorted(source.rglob("*")) if path.suffix.lower() == ".csv" and _header(path) is not None]
    if len(tables) != 1:
        found = f"{len(tables)} such tables: {', '.join(map(str, tables))}; name one" if tables else "no such table"
        raise ValueError(f"{source}: expected a CSV file with the columns {', '.join(_COLUMNS)}, found {found}")
    return tables[0]


def _header(table: Path) -> list[str] | None:
    """The header of a table that has the columns; None of any other file."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header = [cell.strip().lower() for cell in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    return header if set(_COLUMNS) <= set(header) else None


def _read_table(table: Path) -> list[_Row]:
    header = _header(table)
    if header is None:
        raise ValueError(f"{table} is not a readable CSV file with the columns {', '.join(_COLUMNS)}")
    name_at, label_at = (header.index(column) for column in _COLUMNS)
    rows = []
    with table.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            cells = [cell.strip() for cell in row]
            if number == 1 or not any(cells):
                continue
            if len(cells) <= max(name_at, label_at) or not cells[name_at] or cells[label_at] not in ("0", "1"):
                raise ValueError(f"{table}, row {number}: expected an image and 0 or 1, got {','.join(row)}")
            rows.append(_Row(number, cells[name_at], int(cells[label_at])))
    return rows


def _by_name(source: Path, paths: list[Path]) -> dict[str, list[Path]]:
    """Images by their path in the data set, their name and their name without ending, in lower case."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        for name in {path.relative_to(source).as_posix(), path.name, path.stem}:
            found[comparable(name).lower()].append(path)
    return found


def _find(row: _Row, by_name: Mapping[str, list[Path]], table: Path) -> Path | None:
    name = Path(row.name.replace("\\", "/"))
    for wanted in (name.as_posix(), name.name, name.stem):
        paths = by_name.get(comparable(wanted).lower(), [])
        if len(paths) > 1:
            raise ValueError(f"{table}, row {row.number}: {row.name} exists twice, as {paths[0]} and {paths[1]}: keep one")
        if paths:
            return paths[0]
    return None


def _check_once(images: Mapping[_Row, Path | None], table: Path) -> None:
    rows: dict[Path, _Row] = {}
    for row, path in images.items():
        first = rows.setdefault(path, row) if path else row
        if first is not row:
            raise ValueError(f"{table}, row {row.number}: {path} is already in row {first.number}: keep one of them")


def _check_size(path: Path) -> None:
    try:
        with Image.open(path) as image:
            size_px = image.size
    except Exception as error:  # damage: besides OSError anything from SyntaxError to zlib's errors
        raise ValueError(f"{path.name} cannot be read ({error})") from error
    if size_px != IMAGE_SIZE_PX:
        raise ValueError(f"{path.name} is {size_px[0]} x {size_px[1]} px, not {IMAGE_SIZE_PX[0]} x {IMAGE_SIZE_PX[1]}")
