"""TCGA slides: label and case from the barcode, location from the project, split and group as in the paper.

Slides come from https://portal.gdc.cancer.gov (Data Type "Slide Image"); a cart there gives the GDC manifest, for gdc-client,
and the sample sheet, which knows the projects.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..record import Record
from ..splits import assign_splits
from .tcga_barcode import LOCATIONS, SECTIONS, TRAINING_LOCATIONS, TcgaBarcode, parse_barcode

# Headers in lower case: of the GDC manifest, then of the sample sheet.
TABLE_COLUMNS = {
    "id": "file_id",
    "filename": "file_name",
    "file id": "file_id",
    "file name": "file_name",
    "project id": "project_id",
    "case id": "case_id",
    "sample id": "sample_id",
    "sample type": "sample_type",
    "tissue type": "tissue_type",
}
# Frozen sections of the paper's training locations.
PUBLISHED_SLIDES = {"kidney": 2334, "bronchus and lung": 2168, "breast": 1979}
TUMOUR_WORDS = {"tumor", "cancer", "primary", "recurrent", "metastatic"}


@dataclass(frozen=True)
class GdcRow:
    """A row of a GDC table; ``row`` is the number of its line, the header being 1. Missing fields are empty."""

    row: int
    file_id: str
    file_name: str
    project_id: str = ""
    case_id: str = ""
    sample_id: str = ""
    sample_type: str = ""
    tissue_type: str = ""


@dataclass(frozen=True)
class _Slide:
    where: str  # for errors: the row of the table, or the file
    name: str
    image: str | None  # None: not in the folder
    barcode: TcgaBarcode
    location: str | None


def read_gdc_table(path: str | Path) -> list[GdcRow]:
    """The rows of a GDC manifest (``id filename md5 size state``) or of a GDC sample sheet (``File ID, File Name, ...``).

    Raises:
        ValueError: if there is no such file, it is not tab-separated with these columns, a column comes twice, a row has fewer
            or more cells than the header, as where a download or a copy was cut off, or names no file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the table {path} does not exist: give a GDC manifest or sample sheet.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t", strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable table (UTF-8, tabs): {error}") from error
    header = [TABLE_COLUMNS.get(name.lower(), "") for name in lines[0][1]] if lines else []
    if not {"file_id", "file_name"} <= set(header):
        columns = ", ".join(lines[0][1]) if lines else "none"
        raise ValueError(
            f"{path} is neither a GDC manifest (tab-separated columns id, filename) nor a GDC sample sheet "
            f"(File ID, File Name); its columns are: {columns}."
        )
    for name in filter(None, set(header)):
        if header.count(name) > 1:
            twice = [column for column, known in zip(lines[0][1], header, strict=True) if known == name]
            raise ValueError(f"{path} has the columns {', '.join(twice)}: keep one of them.")
    rows = []
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, row {number}: {len(cells)} cells under a header of {len(header)}: is the file complete? Cells: "
                f"{', '.join(cells)}."
            )
        named = {name: cell for name, cell in zip(header, cells, strict=True) if name}
        if not named.get("file_id") or not named.get("file_name"):
            raise ValueError(f"{path}, row {number}: the id or the name of the file is empty; cells: {', '.join(cells)}.")
        rows.append(GdcRow(number, **named))
    return rows


def tcga_records(
    table: str | Path | None = None,
    slides: str | Path | None = None,
    section: str = "all",
    training_locations: Sequence[str] | None = None,
    allow_missing: bool = False,
    seed: int = 0,
) -> tuple[list[Record], list[str]]:
    """Manifest records of TCGA slides, with their ``group`` and ``location``.

    Slides of the training locations are the group ``in_distribution``: their cases are split 65/15/20 within location and
    labels (`assign_splits`). Slides of other locations are the group ``out_of_location``, all in the test split. Only the
    sample sheet knows the project and so the location: without one, ``location`` is None and every slide is
    ``in_distribution``.

    Args:
        table: GDC manifest or sample sheet: its rows are the records.
        slides: folder of slides, searched with the folders below it, upper and lower case alike, so that both ``<id>/<file>``,
            as gdc-client puts them, and ``<file>`` are found. Without `table` every ``TCGA-*.svs`` is a record, else those that
            the table names. Without `slides` no file is looked for: ``image`` is ``<id>/<file>``, where gdc-client will put
            it when it is started in the folder of the manifest.
        section: ``"frozen"``, ``"diagnostic"`` or ``"all"``; the paper used frozen sections.
        training_locations: values of `LOCATIONS`; None for the paper's, which are `TRAINING_LOCATIONS`.
        allow_missing: leave out rows whose file is not in `slides`.
        seed: of the split.

    Returns:
        the records, and the names of the files that were left out because they are missing.

    Raises:
        ValueError: naming the row or the file: for a name that is no barcode or has another sample-type code, a slide that
            is there twice (whether or not the UUIDs differ), a project without location, a sheet that contradicts the
            barcode, a case in two locations, a missing file; and for arguments that leave nothing.

    Reference:
        Lerousseau et al., MICCAI 2020, section 3.2: training on kidney, bronchus and lung, breast; colon, ovary and corpus
        uteri as out of location.
    """
    if section not in ("all", *SECTIONS.values()):
        raise ValueError(f"section must be one of all, frozen, diagnostic; got {section!r}")
    if table is None and slides is None:
        raise ValueError("need a folder of slides, a GDC table, or both")
    source = str(slides if table is None else table)
    files = None if slides is None else _slide_files(Path(slides))
    found = _slides_of_folder(files or []) if table is None else _slides_of_table(Path(table), files)
    found = [slide for slide in found if section in ("all", slide.barcode.section)]
    _check_once(found)
    _check_one_location_a_case(found)
    missing = [slide for slide in found if slide.image is None]
    if missing and not allow_missing:
        raise ValueError(
            f"{missing[0].where}: {_first([slide.name for slide in missing])} not found in {slides}: {len(missing)} of "
            f"{len(found)} slides are missing. Download them, or leave them out with allow_missing."
        )
    records = [_record(slide, slide.image) for slide in found if slide.image is not None]
    if not records:
        where = f" is in {slides}, where {len(missing)} are missing" if missing else ""
        raise ValueError(f"{source}: no TCGA slide{'' if section == 'all' else f' with section {section}'}{where}.")
    _fill_groups(records, training_locations, source)
    _fill_splits(records, seed)
    return records, [slide.name for slide in missing]


def _slide_files(folder: Path) -> list[Path]:
    """Every TCGA-*.svs below the folder, absolute, in order; links are kept, those to nothing are left out."""
    if not folder.is_dir():
        raise ValueError(f"the folder of slides {folder} does not exist.")
    paths = sorted(folder.resolve().rglob("*"))
    return [path for path in paths if re.fullmatch(r"tcga-.*\.svs", path.name.lower()) and path.is_file()]


def _slides_of_folder(files: Sequence[Path]) -> list[_Slide]:
    return [_Slide(str(path), path.name, str(path), _parse(path.name, str(path)), None) for path in files]


def _slides_of_table(table: Path, files: Sequence[Path] | None) -> list[_Slide]:
    """The slides that the table names, each with its file among `files`; None: where gdc-client will put it."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in files or ():
        by_name[path.name.lower()].append(path)
    slides = []
    for row in read_gdc_table(table):
        where = f"{table}, row {row.row}"
        barcode = _parse(row.file_name, where)
        _check_agreement(row, barcode, where)
        image = f"{row.file_id}/{row.file_name}" if files is None else _find(row, by_name[row.file_name.lower()], where)
        slides.append(_Slide(where, row.file_name, image, barcode, _location(row, where)))
    if len({slide.location is None for slide in slides}) > 1:
        unknown = next(slide for slide in slides if slide.location is None)
        raise ValueError(f"{unknown.where}: the project is empty here, but not in other rows: every slide needs its location.")
    return slides


def _parse(name: str, where: str) -> TcgaBarcode:
    try:
        return parse_barcode(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from None


def _check_agreement(row: GdcRow, barcode: TcgaBarcode, where: str) -> None:
    """Check the case, sample and tissue of the sheet against the barcode."""
    for what, text, expected in (
        ("case", row.case_id, barcode.case_id),
        ("sample", row.sample_id, barcode.sample_id),
    ):
        # The sheet repeats the name, with commas, where a file has several entries.
        if text and {name.strip().upper() for name in text.split(",")} != {expected}:
            raise ValueError(f"{where}: {what} {text} contradicts the barcode {barcode.slide}, which says {expected}.")
    for text in (row.sample_type, row.tissue_type):
        if _tissue_label(text) not in (None, barcode.label):
            meaning = "tumour" if barcode.label else "normal"
            raise ValueError(
                f"{where}: {text!r} contradicts the barcode {barcode.slide}, in which code {barcode.sample_type:02} means "
                f"{meaning}."
            )


def _tissue_label(text: str) -> int | None:
    """The label of a sample type ("Solid Tissue Normal", "Primary Tumor") or tissue type; None if it states neither."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    if "normal" in words:
        return 0
    return 1 if words & TUMOUR_WORDS else None


def _location(row: GdcRow, where: str) -> str | None:
    if not row.project_id:
        return None
    location = LOCATIONS.get(row.project_id.upper())
    if location is None:
        raise ValueError(f"{where}: {row.project_id!r} is not one of the 33 TCGA projects ({', '.join(LOCATIONS)}).")
    return location


def _find(row: GdcRow, candidates: Sequence[Path], where: str) -> str | None:
    """The row's file: the one in the folder of its id, else the only one of its name."""
    chosen = [path for path in candidates if path.parent.name.lower() == row.file_id.lower()] or list(candidates)
    if len(chosen) > 1:
        raise ValueError(f"{where}: {row.file_name} exists twice, as {chosen[0]} and {chosen[1]}: keep one.")
    return str(chosen[0]) if chosen else None


def _check_once(slides: Sequence[_Slide]) -> None:
    seen: dict[str, _Slide] = {}
    for slide in slides:
        first = seen.setdefault(slide.barcode.slide, slide)
        if first is not slide:
            raise ValueError(f"{slide.where}: slide {slide.barcode.slide} occurs twice, first as {first.where}: keep one.")


def _check_one_location_a_case(slides: Sequence[_Slide]) -> None:
    seen: dict[str, _Slide] = {}
    for slide in slides:
        first = seen.setdefault(slide.barcode.case_id, slide)
        if first.location != slide.location:
            raise ValueError(
                f"{slide.where}: case {slide.barcode.case_id} has location {slide.location!r} here and {first.location!r} in "
                f"{first.where}: its patient could be in two splits."
            )


def _record(slide: _Slide, image: str) -> Record:
    return {
        "image": image,
        "label": slide.barcode.label,
        "case_id": slide.barcode.case_id,
        "location": slide.location,
    }


def _fill_groups(records: Sequence[Record], training_locations: Sequence[str] | None, source: str) -> None:
    if training_locations is not None and records[0]["location"] is None:
        raise ValueError(f"{source} names no project, so training locations have no meaning: give a GDC sample sheet.")
    wanted = TRAINING_LOCATIONS if training_locations is None else tuple(training_locations)
    unknown = sorted(set(wanted) - set(LOCATIONS.values()))
    if unknown or not wanted:
        raise ValueError(f"training locations must be some of {', '.join(sorted(set(LOCATIONS.values())))}; got {list(wanted)}")
    for record in records:
        inside = record["location"] is None or record["location"] in wanted
        record["group"] = "in_distribution" if inside else "out_of_location"


def _fill_splits(records: Sequence[Record], seed: int) -> None:
    by_location: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record["group"] == "out_of_location":
            record["split"] = "test"
        else:
            by_location[record["location"] or ""].append(record)
    for location in sorted(by_location):
        assign_splits(by_location[location], seed=seed)


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
