"""The table of a comparison for programs, and the words of its cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scripts.declarations.published import PublishedData
from shared.writers import atomic_path

from ..differences import verdict
from ..intervals import FEW_CASES, Interval
from ..method_row import MethodRow

EFFORTS = ("labels", "areas", "masks")


def effort_text(effort: Mapping[str, int]) -> str:
    """The labels that a method learned from, in words.

    >>> effort_text({"labels": 200, "areas": 100, "masks": 0})
    '200 labels, 100 areas'
    >>> effort_text({"labels": 0, "areas": 0, "masks": 1})
    '1 mask'
    """
    named = (f"{count} {name if count != 1 else name.removesuffix('s')}" for name, count in effort.items() if count)
    return ", ".join(named) or "none"


def effort_minutes(effort: Mapping[str, int], seconds: Mapping[str, float]) -> float:
    """Minutes of an annotator, with so many seconds a label, an area and a mask.

    >>> effort_minutes({"labels": 60, "areas": 0, "masks": 1}, {"labels": 5, "areas": 10, "masks": 240})
    9.0
    """
    return sum(count * seconds[name] for name, count in effort.items()) / 60


def percent(interval: Interval | None) -> str:
    """A score in per cent with its interval.

    >>> percent(Interval(0.5, 0.4, 0.61)), percent(Interval(0.5, float("nan"), float("nan"))), percent(None)
    ('50.0 (40.0 to 61.0)', '50.0 (-)', '-')
    >>> percent(Interval(1.0, 0.9999, 1.0))
    '100.0 (-)'
    """
    if interval is None or math.isnan(interval.mean):
        return "-"
    ends = range_text(interval, " to ")
    return f"{100 * interval.mean:.1f} ({ends or '-'})"


def range_text(interval: Interval, between: str) -> str:
    """The ends of an interval in per cent; nothing where there are none, or they read the same."""
    if not interval.is_known:
        return ""
    low, high = (f"{100 * end:.1f}" for end in (interval.low, interval.high))
    return "" if low == high else f"{low}{between}{high}"


def reading_text(row: MethodRow) -> str:
    """At which pixel size a method reads, and with which overlays of its bundle.

    >>> reading_text(MethodRow("camel+ebhi_seg", "CAMEL", mpp=0.25, overlays=["ebhi_seg"]))
    '0.25, ebhi_seg'
    """
    return ", ".join([f"{row.mpp:g}" if row.mpp is not None else "-", *row.overlays])


def trainings_text(row: MethodRow) -> str:
    """How many trainings a row is the mean of, and what its intervals leave out."""
    if row.is_of_one_training:
        return "over patients only (1 seed)"
    return f"{len(row.seeds)} seeds" if len(row.seeds) > 1 else ""


def caution(rows: Sequence[MethodRow]) -> str:
    """What readers of the intervals must know: few cases, and methods of one training; empty if all is well."""
    drawn = [row.draws for row in rows if row.draws is not None]
    few = f"Only {drawn[0].num_cases} test cases: below {FEW_CASES} the intervals are rough." if drawn else ""
    alone = "With one training per method, intervals cover patients only and are too narrow."
    said = [few if drawn and drawn[0].num_cases < FEW_CASES else "", alone if any(row.is_of_one_training for row in rows) else ""]
    return " ".join(filter(None, said))


def cited(published: PublishedData | None, rows: Sequence[MethodRow]) -> PublishedData | None:
    """What papers report, where a number of theirs stands beside any of the rows; else None."""
    return published if published is not None and any(published.of(row.key, row.config) for row in rows) else None


def citation_text(published: PublishedData) -> str:
    """What published numbers are of, who reports them and how they were measured.

    >>> citation_text(PublishedData("Slides", "Somebody, 2020", note="Means of slides."))
    'Slides; Somebody, 2020. Means of slides.'
    """
    return f"{published.title}; {published.citation}. {published.note}".strip()


def write_csv(
    rows: Sequence[MethodRow],
    path: Path,
    names: Mapping[str, str],
    seconds: Mapping[str, float],
    published: PublishedData | None,
    first_score: str = "iou",
) -> None:
    """A row per method; scores are shares of 1, with the ends of their intervals next to them."""
    _write_cells([_csv_cells(row, rows, names, seconds, published, first_score) for row in rows], path)


def write_groups_csv(
    rows: Sequence[MethodRow],
    path: Path,
    names: Mapping[str, str],
    seconds: Mapping[str, float],
    groups: Mapping[str, PublishedData | None],
    first_score: str = "iou",
) -> None:
    """A row per group and method: the columns of `write_csv`, behind that of the group. No file without such rows.

    Args:
        rows: of the comparison.
        path: to write to.
        names: scores and their titles.
        seconds: an annotator's, for each of `EFFORTS`.
        groups: that are scored apart, and what papers report on each.
        first_score: the one by which methods are told from the floor.
    """
    table = []
    for group, published in groups.items():
        of_group = [row.of_group(group) for row in rows if group in row.of_groups]
        table += [{"group": group} | _csv_cells(row, of_group, names, seconds, published, first_score) for row in of_group]
    if table:
        _write_cells(table, path)
    else:
        path.unlink(missing_ok=True)


def _csv_cells(
    row: MethodRow,
    rows: Sequence[MethodRow],
    names: Mapping[str, str],
    seconds: Mapping[str, float],
    published: PublishedData | None,
    first_score: str,
) -> dict[str, Any]:
    cells: dict[str, Any] = {"method": row.key, "title": row.title, "status": row.status, "reason": row.reason}
    cells["seeds"] = " ".join(map(str, row.seeds))
    cells["verdict"] = verdict(row, rows, first_score)
    for name in names:
        score = row.scores.get(name)
        for part in ("mean", "low", "high"):
            cells[name if part == "mean" else f"{name}_{part}"] = _number(getattr(score, part) if score else math.nan)
    if published is not None:
        of_method = published.of(row.key, row.config)
        cells |= {f"published_{name}": of_method.get(name) for name in names if name in published.score_names}
    cells |= {name: row.effort.get(name) for name in EFFORTS}
    cells |= {f"{name}_to_select": row.selection.get(name) for name in EFFORTS}
    cells["annotation_minutes"] = round(effort_minutes(row.whole_effort, seconds), 2) if row.effort else None
    cells["training_minutes"] = _number(row.training_minutes, 3)
    cells["seconds_per_image"] = _number(row.seconds_per_image, 3)
    cells["peak_gib"] = round(row.peak_bytes / 2**30, 3) if row.peak_bytes else None
    cells["gpu_gib"] = round(row.gpu_bytes / 2**30, 3) if row.gpu_bytes is not None else None
    cells["mpp"], cells["overlays"] = row.mpp, " ".join(row.overlays)
    cells["settings"] = "; ".join(f"{name}={value}" for name, value in row.settings.items())
    return cells


def _write_cells(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    with atomic_path(path) as temporary:
        whole = [*EFFORTS, *(f"{name}_to_select" for name in EFFORTS)]
        # Whole numbers stay whole where some rows have none.
        pd.DataFrame(table).astype(dict.fromkeys(whole, "Int64")).to_csv(temporary, index=False)


def confusion_shares(confusion: NDArray[np.int64], class_names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Percentage of each true class's pixels that were assigned to each class.

    >>> confusion_shares(np.array([[3, 1, 0], [0, 0, 0], [0, 1, 1]]), ["a", "b", "c"])
    [('a', ['75.0', '25.0', '0.0']), ('b', ['-', '-', '-']), ('c', ['0.0', '50.0', '50.0'])]
    """
    return [
        (name, [f"{100 * count / counts.sum():.1f}" if counts.any() else "-" for count in counts])
        for name, counts in zip(class_names, confusion, strict=True)
    ]


def _number(value: float, digits: int = 6) -> float | None:
    return None if math.isnan(value) else round(value, digits)
