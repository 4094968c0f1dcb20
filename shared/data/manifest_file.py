"""The CSV file of a manifest: its rows as they stand in it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..writers.atomic import contended_path
from ..wsi.file_names import existing_file

# In the order on disk.
COLUMNS = ["image", "x", "y", "width_um", "height_um", "width_px", "height_px", "mpp", "label", "area", "mask"]
COLUMNS += ["tumour_classes", "annotation_frame", "case_id", "split", "group", "location"]
# What other programs call these columns. One that is passed over would go unnoticed, and patients would be in two splits.
OTHER_NAMES = {
    "case_id": ("case", "case_submitter_id", "patient", "patient_id", "subject", "subject_id"),
    "mask": ("mask_path",),
    "split": ("dataset_split", "partition", "subset"),
}
# Columns that hold paths.
FILES = ("image", "mask")
# One letter makes another word of shorter names, such as a task of a mask.
_LONG = 5
# A column width_mm holds what no column here does.
_OTHER_UNITS = ("mm", "cm", "nm")
# CAMEL's authors publish their adenoma data set with this column.
_CAMELS_IMAGE = "image_name"


@dataclass(frozen=True)
class ManifestRow:
    """A row of a manifest.

    Attributes:
        path: of the manifest.
        number: the line on which the row begins, from 1.
        cells: of the manifest's own columns, by their names; None where they are empty.
        texts: of all columns, in the file's order.
    """

    path: Path
    number: int
    cells: dict[str, str | None]
    texts: Sequence[str] = ()

    def error(self, what: str) -> ValueError:
        return ValueError(f"{self.path}, row {self.number}: {what}.")

    def file(self, name: str, check: bool) -> str | None:
        """The absolute path in a cell, of a link itself: in stores such as git-annex the name of its target says nothing.

        It is that of the file that is there, if only its accents are written in another way (`existing_file`).
        """
        text = self.cells[name]
        if text is None:
            return None
        file = existing_file(self.path.parent / text)
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


@dataclass(frozen=True)
class ManifestFile:
    """A manifest as it stands in its file.

    Attributes:
        path: of the file.
        header: names of all columns as they are in the file, those that the project does not know too.
        rows: one at least.
    """

    path: Path
    header: Sequence[str]
    rows: Sequence[ManifestRow]

    def write_rows(self, path: str | Path, mpp_of_row: Mapping[int, float | None]) -> None:
        """Write some of the rows as another manifest: all columns in their order, the cells as they are.

        Several processes may write one file at the same time: it is whole, and the last one stays.

        Args:
            path: of the new manifest. Relative paths of images and masks become absolute ones if it is in another folder.
            mpp_of_row: by its number, each row to write, and what its cell ``mpp`` gets if that is empty: None leaves it so. The
                column is added as the last one if there is none and it is needed.
        """
        path = Path(path)
        is_moved = path.parent.resolve() != self.path.parent.resolve()
        known = known_names(self.header)
        header = list(self.header)
        if "mpp" not in known and any(mpp is not None for mpp in mpp_of_row.values()):
            header.append("mpp")
            known = [*known, "mpp"]
        with contended_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for row in self.rows:
                if row.number not in mpp_of_row:
                    continue
                texts = [*row.texts, *[""] * (len(header) - len(row.texts))]
                for name in FILES if is_moved else ():
                    if row.cells[name] is not None:
                        texts[known.index(name)] = _absolute(row, name)
                mpp = mpp_of_row[row.number]
                if mpp is not None and row.cells["mpp"] is None:
                    texts[known.index("mpp")] = str(mpp)
                writer.writerow(texts)


def _absolute(row: ManifestRow, name: str) -> str:
    """The path in a cell: as it is if it is absolute."""
    text = row.cells[name] or ""
    return text if Path(text).is_absolute() else row.file(name, check=False) or ""


def read_manifest_file(path: str | Path) -> ManifestFile:
    """Read the CSV file of a manifest; what is in its cells is not checked.

    Raises:
        ValueError: if it is no CSV file with rows and a column ``image``, or if a column has nearly the name of one that is
            missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the manifest {path} does not exist: give the path of a CSV file with a column 'image'.")
    try:
        rows = _cells(path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable CSV file (UTF-8, commas): {error}.{_other_separator(path)}") from error
    if not rows:
        raise ValueError(f"{path} is empty: a manifest is a CSV file with a column 'image'.")
    header = rows.pop(0)[1]
    known = known_names(header)
    if "image" in known or not _other_separator(path):
        _refuse_mistyped(known, path)
    if "image" not in known:
        raise ValueError(f"{path} has no column 'image'; its columns are: {', '.join(known)}.{_other_separator(path)}")
    for name in COLUMNS:
        if known.count(name) > 1:
            raise ValueError(f"{path} has {known.count(name)} columns {name!r}: keep one of them.")
    if not rows:
        raise ValueError(f"{path} has a header but no rows.")
    for number, cells in rows:
        if any(cells[len(header) :]):
            raise ManifestRow(path, number, {}).error(
                f"{len(cells)} cells under a header of {len(header)}: put cells that contain commas in quotes"
            )
    # A row that ends early leaves the rest empty.
    named = [(number, dict(zip(known, cells, strict=False)), cells[: len(header)]) for number, cells in rows]
    return ManifestFile(
        path,
        header,
        [ManifestRow(path, number, {name: row.get(name) or None for name in COLUMNS}, texts) for number, row, texts in named],
    )


def _other_separator(path: Path) -> str:
    """The remedy for a file whose header is separated by semicolons or tabs, as Excel writes it in many languages; else empty."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    counts = {",": header.count(","), ";": header.count(";"), "\t": header.count("\t")}
    found = max(counts, key=lambda separator: counts[separator])
    names = {";": "semicolons", "\t": "tabs"}
    return f" It is separated by {names[found]}: save it as a CSV file with commas" if found in names and counts[found] else ""


def known_names(header: Sequence[str]) -> list[str]:
    """The columns of a file by the names that the project knows them by."""
    return list(header) if "image" in header else ["image" if name == _CAMELS_IMAGE else name for name in header]


def _refuse_mistyped(header: Sequence[str], path: Path) -> None:
    """Refuse a column such as Label, splits or patient, which stands for one that is absent: what it holds would not be read."""
    others = {other: name for name, others in OTHER_NAMES.items() for other in others}
    absent = {other: name for other, name in ({name: name for name in COLUMNS} | others).items() if name not in header}
    for name in header:
        meant = next((meant for other, meant in absent.items() if _is_nearly(name, other)), None)
        if name not in COLUMNS and meant is not None:
            raise ValueError(
                f"{path} has a column {name!r} and no column {meant!r}: was {meant} meant? Rename it, or leave it out."
            )


def _is_nearly(name: str, other: str) -> bool:
    """Whether a name is another one but for capitals, signs, the order of its letters, a plural or, of five letters and more, one
    letter.

    >>> [_is_nearly(name, "case_id") for name in ("Case ID", "caes_id", "case_ids", "cae_id", "cause", "id")]
    [True, True, True, True, False, False]
    >>> _is_nearly("masks", "mask"), _is_nearly("task", "mask"), _is_nearly("width_mm", "width_um")
    (True, False, False)
    """
    letters, of_other = (_letters(text) for text in (name, other))
    if letters.endswith(_OTHER_UNITS):
        return False
    if sorted(letters) == sorted(of_other) or letters == f"{of_other}s":
        return True
    return len(of_other) >= _LONG and bool(_with_one_less(letters) & _with_one_less(of_other))


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _with_one_less(letters: str) -> set[str]:
    """The letters, and what is left of them without any one."""
    return {letters, *(letters[:index] + letters[index + 1 :] for index in range(len(letters)))}


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
