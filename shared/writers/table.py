"""A CSV with one row per slide, updated row by row during a run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from .atomic import atomic_path


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
        if reader.fieldnames is None or key not in reader.fieldnames:
            raise ValueError(f"{path} has no column {key!r}: it was not written by this program; move it away.")
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
