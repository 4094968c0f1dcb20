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

from ..rows.differences import differences_to, verdict
from ..rows.method_row import MethodRow
from ..scores.ceilings import CEILINGS
from ..scores.intervals import Difference, Interval

EFFORTS = ("labels", "areas", "masks")


def counted(number: int, noun: str) -> str:
    """A number of things in words.

    >>> counted(1, "test image"), counted(0, "mask")
    ('1 test image', '0 masks')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def effort_text(effort: Mapping[str, int]) -> str:
    """The labels that a method learned from, in words.

    >>> effort_text({"labels": 200, "areas": 100, "masks": 0})
    '200 labels, 100 areas'
    >>> effort_text({"labels": 0, "areas": 0, "masks": 1})
    '1 mask'
    """
    named = (counted(count, name.removesuffix("s")) for name, count in effort.items() if count)
    return ", ".join(named) or "none"


def effort_minutes(effort: Mapping[str, int], seconds: Mapping[str, float]) -> float:
    """Minutes of an annotator, with so many seconds a label, an area and a mask.

    >>> effort_minutes({"labels": 60, "areas": 0, "masks": 1}, {"labels": 5, "areas": 10, "masks": 240})
    9.0
    """
    return sum(count * seconds[name] for name, count in effort.items()) / 60


def labels_text(row: MethodRow, effort: Mapping[str, int], unknown: str) -> str:
    """The same of a row: of a ceiling, whose labels are all those of the test images, it is unknown.

    >>> labels_text(MethodRow("true_labels", "Ceiling"), {}, "-"), labels_text(MethodRow("camel", "CAMEL"), {}, "-")
    ('-', 'none')
    """
    return unknown if row.key in CEILINGS else effort_text(effort)


def annotation_minutes(row: MethodRow, seconds: Mapping[str, float]) -> float:
    """Minutes of an annotator for all that a row learned from and chose by; NaN of a ceiling."""
    return math.nan if row.key in CEILINGS else effort_minutes(row.whole_effort, seconds)


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
    # Not -0.0.
    low, high = (f"{round(100 * end, 1) + 0.0:.1f}" for end in (interval.low, interval.high))
    return "" if low == high else f"{low}{between}{high}"


def reading_text(row: MethodRow) -> str:
    """At which pixel size a method reads, and with which overlays of its bundle.

    >>> reading_text(MethodRow("camel+ebhi_seg", "CAMEL", mpp=0.25, overlays=["ebhi_seg"]))
    '0.25, ebhi_seg'
    """
    return ", ".join([f"{row.mpp:g}" if row.mpp is not None else "-", *row.overlays])


def difference_text(difference: Difference | None) -> str:
    """A difference in per cent with its interval and the share of the draws in which the method is ahead.

    >>> difference_text(Difference(-0.15, -0.343, 0.086, 0.118)), difference_text(None)
    ('-15.0 (-34.3 to 8.6), ahead in 12 %', '-')
    >>> difference_text(Difference(0.3, math.nan, math.nan, 1.0)), difference_text(Difference(-1e-5, -2e-5, 0.0, 0.4))
    ('+30.0 (-)', '0.0 (-)')
    """
    if difference is None or math.isnan(difference.mean):
        return "-"
    ends = range_text(difference, " to ")
    points = signed_text(difference.mean)
    return f"{points} ({ends}), {ahead_text(difference)}" if ends else f"{points} (-)"


def signed_text(share: float) -> str:
    """A difference in points, with its sign where it has one.

    >>> signed_text(0.3), signed_text(-0.0001), signed_text(-0.3)
    ('+30.0', '0.0', '-30.0')
    """
    points = round(100 * share, 1)
    return f"{points:+.1f}" if points else "0.0"


def ahead_text(difference: Difference) -> str:
    """In how many draws a method is ahead: not 0 % or 100 % where it is not.

    >>> [ahead_text(Difference(0.1, 0.0, 0.2, share)) for share in (0.0, 0.001, 0.999, 0.5)]
    ['ahead in 0 %', 'ahead in under 1 %', 'ahead in over 99 %', 'ahead in 50 %']
    """
    if 0 < difference.ahead < 0.005:
        return "ahead in under 1 %"
    return "ahead in over 99 %" if 0.995 <= difference.ahead < 1 else f"ahead in {100 * difference.ahead:.0f} %"


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
    reference: MethodRow | None = None,
) -> None:
    """A row per method; scores are shares of 1, with the ends of their intervals next to them, and so is the difference in the
    first score to the reference, which has none to itself."""
    _write_cells([_csv_cells(row, rows, names, seconds, published, first_score, reference) for row in rows], path)


def write_groups_csv(
    rows: Sequence[MethodRow],
    path: Path,
    names: Mapping[str, str],
    seconds: Mapping[str, float],
    groups: Mapping[str, PublishedData | None],
    first_score: str = "iou",
    reference: MethodRow | None = None,
) -> None:
    """A row per group and method: the columns of `write_csv`, after that of the group. No file without such rows.

    Args:
        rows: of the comparison.
        path: to write to.
        names: scores and their titles.
        seconds: an annotator's, for each of `EFFORTS`.
        groups: that are scored apart, and what papers report on each.
        first_score: the one by which methods are told from the floor and from the reference.
        reference: that the others are compared with.
    """
    table = []
    for group, published in groups.items():
        of_group = [row.of_group(group) for row in rows if group in row.of_groups]
        its = row_of(reference, of_group)
        table += [{"group": group} | _csv_cells(row, of_group, names, seconds, published, first_score, its) for row in of_group]
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
    reference: MethodRow | None,
) -> dict[str, Any]:
    cells: dict[str, Any] = {"method": row.key, "title": row.title, "status": row.status, "reason": row.reason}
    cells["seeds"] = " ".join(map(str, row.seeds))
    cells["verdict"] = verdict(row, rows, first_score)
    for name in names:
        score = row.scores.get(name)
        for part in ("mean", "low", "high"):
            cells[name if part == "mean" else f"{name}_{part}"] = _number(getattr(score, part) if score else math.nan)
    cells |= _csv_difference(row, reference, first_score)
    if published is not None:
        of_method = published.of(row.key, row.config)
        cells |= {f"published_{name}": of_method.get(name) for name in names if name in published.score_names}
    cells |= {name: row.effort.get(name) for name in EFFORTS}
    cells |= {f"{name}_to_select": row.selection.get(name) for name in EFFORTS}
    cells["annotation_minutes"] = _number(annotation_minutes(row, seconds), 2) if row.effort else None
    cells["training_minutes"] = _number(row.training_minutes, 3)
    cells["seconds_per_image"] = _number(row.seconds_per_image, 3)
    cells["peak_gib"] = round(row.peak_bytes / 2**30, 3) if row.peak_bytes else None
    cells["gpu_gib"] = round(row.gpu_bytes / 2**30, 3) if row.gpu_bytes is not None else None
    cells["mpp"], cells["overlays"] = row.mpp, " ".join(row.overlays)
    cells["settings"] = "; ".join(f"{name}={value}" for name, value in row.settings.items())
    return cells


def row_of(wanted: MethodRow | None, rows: Sequence[MethodRow]) -> MethodRow | None:
    """The row of the same method among those of a group, say."""
    return next((row for row in rows if wanted is not None and row.key == wanted.key), None)


def _csv_difference(row: MethodRow, reference: MethodRow | None, name: str) -> dict[str, Any]:
    """The difference to the reference in one score; empty cells of the reference itself, and where it is unknown."""
    found = differences_to(reference, [row], [name]).get(row.key, {}).get(name) if reference is not None else None
    cells: dict[str, Any] = {"reference": reference.key if reference is not None else "", "difference_score": name}
    for part, column in (("mean", "difference"), ("low", "difference_low"), ("high", "difference_high"), ("ahead", "ahead")):
        cells[column] = _number(getattr(found, part) if found is not None else math.nan)
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
