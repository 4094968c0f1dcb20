"""A CSV with one row per slide, updated row by row during a run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from .atomic import atomic_path


def check_table(path: str | Path, columns: Sequence[str]) -> None:
    """Check that a CSV has these columns, or is not there.

    Raises:
        ValueError: naming those that it has not.
    """
    path = Path(path)
    if path.is_file():
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            _check_columns(path, next(csv.reader(file), []), columns)


def read_rows(path: str | Path, key: str = "slide") -> dict[str, dict[str, str]]:
    """Read a CSV as a dictionary from each row's `key` to the row, all cells text; empty when the file does not exist.

    Raises:
        ValueError: if the file has no column `key`.
    """
    path = Path(path)
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        _check_columns(path, reader.fieldnames or [], [key])
        return {row[key]: row for row in reader}


def write_rows(path: str | Path, new_rows: Sequence[Mapping[str, object]], key: str = "slide") -> None:
    """Put rows into the CSV in place of those with the same `key`, or at its end; the file is replaced as a whole.

    A column that only the old file has is kept, one that only a new row has is added at the right; None becomes an empty
    cell. Readers see the old file or the new one; of two writers at the same time one would lose its rows.
    """
    rows: dict[str, Mapping[str, object]] = dict(read_rows(path, key))
    columns = dict.fromkeys(next(iter(rows.values()), {}))
    for row in new_rows:
        columns |= dict.fromkeys(row)
        rows[str(row[key])] = row
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows.values())


def _check_columns(path: Path, found: Sequence[str], columns: Sequence[str]) -> None:
    missing = [repr(name) for name in columns if name not in found]
    if missing:
        raise ValueError(
            f"{path} exists and was not written by these runs: it has no column {' and no column '.join(missing)}. Move it away, "
            "or give another output folder"
        )
