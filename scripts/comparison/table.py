"""The table of a comparison: for programs (CSV) and for people (Markdown)."""

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

from .differences import FLOOR, difference_text, differences_to, verdict
from .intervals import FEW_CASES, Interval
from .method_row import DONE, MethodRow

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


def write_csv(
    rows: Sequence[MethodRow],
    path: Path,
    names: Mapping[str, str],
    seconds: Mapping[str, float],
    published: PublishedData | None,
    first_score: str = "iou",
) -> None:
    """A row per method; scores are shares of 1, with the ends of their intervals next to them."""
    table = []
    for row in rows:
        cells: dict[str, Any] = {"method": row.key, "title": row.title, "status": row.status, "reason": row.reason}
        cells["seeds"] = " ".join(map(str, row.seeds))
        cells["verdict"] = verdict(row, rows, first_score)
        for name in names:
            score = row.scores.get(name)
            for part in ("mean", "low", "high"):
                cells[name if part == "mean" else f"{name}_{part}"] = _number(getattr(score, part) if score else math.nan)
        if published is not None:
            of_method = published.of(row.key, row.config)
            cells |= {
                f"published_{name}": of_method.get(name) for name in names if any(name in s for s in published.scores.values())
            }
        cells |= {name: row.effort.get(name) for name in EFFORTS}
        cells |= {f"{name}_to_select": row.selection.get(name) for name in EFFORTS}
        cells["annotation_minutes"] = round(effort_minutes(row.whole_effort, seconds), 2) if row.effort else None
        cells["training_minutes"] = _number(row.training_minutes, 3)
        cells["seconds_per_image"] = _number(row.seconds_per_image, 3)
        cells["peak_gib"] = round(row.peak_bytes / 2**30, 3) if row.peak_bytes else None
        cells["gpu_gib"] = round(row.gpu_bytes / 2**30, 3) if row.gpu_bytes is not None else None
        cells["mpp"], cells["overlays"] = row.mpp, " ".join(row.overlays)
        cells["settings"] = "; ".join(f"{name}={value}" for name, value in row.settings.items())
        table.append(cells)
    with atomic_path(path) as temporary:
        whole = [*EFFORTS, *(f"{name}_to_select" for name in EFFORTS)]
        # Whole numbers stay whole where some rows have none.
        pd.DataFrame(table).astype(dict.fromkeys(whole, "Int64")).to_csv(temporary, index=False)


def write_markdown(
    rows: Sequence[MethodRow],
    path: Path,
    names: Mapping[str, str],
    published: PublishedData | None,
    unit: str,
    origin: str,
    reference: MethodRow | None = None,
    first_score: str = "iou",
    class_names: Sequence[str] = (),
) -> None:
    """The table for a README: scores in per cent with their intervals, what they are of, the differences to the reference, then
    what was skipped or failed.

    Args:
        rows: of the comparison.
        path: to write to.
        names: scores and their titles.
        published: of the papers.
        unit: of the test data, ``"image"`` or ``"slide"``.
        origin: of the numbers, a line.
        reference: that the others are compared with.
        first_score: the one whose differences are shown next to the scores.
        class_names: of which confusion matrices are shown where there are three or more.
    """
    done = [row for row in rows if row.status == DONE]
    columns = {name: title for name, title in names.items() if any(name in row.scores for row in done)}
    against = _against(done, reference, columns, first_score)
    with_gpu = any(row.gpu_bytes is not None for row in done)
    costs = ["training, min", f"s per {unit}", "memory, GiB", *(["GPU, GiB"] if with_gpu else [])]
    header = ["method", "labels", "labels to select", "um per pixel, overlays", *columns.values(), *against, *costs]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in done:
        notes = "; ".join(filter(None, [trainings_text(row), verdict(row, rows, first_score)]))
        title = row.title + (f" ({notes})" if notes else "")
        cells = [
            title,
            effort_text(row.effort),
            effort_text(row.selection),
            reading_text(row),
            *(percent(row.scores.get(name)) for name in columns),
        ]
        cells += [of_rows[row.key] for of_rows in against.values()]
        cells += [_cell(row.training_minutes, 1), _cell(row.seconds_per_image, 2)]
        cells += [_gib(row.peak_bytes), *([_gib(row.gpu_bytes)] if with_gpu else [])]
        lines.append("| " + " | ".join(cells) + " |")
        of_method = published.of(row.key, row.config) if published is not None else {}
        if of_method:
            cells = [
                f"{row.title}, published",
                "",
                "",
                "",
                *(f"{100 * of_method[n]:.1f}" if n in of_method else "" for n in columns),
            ]
            lines.append("| " + " | ".join([*cells, *("" for _ in [*against, *costs])]) + " |")
    several = any(len(row.seeds) > 1 for row in done)
    of_what = "patients and seeds" if several else "patients"
    lines += ["", f"Scores in per cent, in brackets the 95 % interval over {of_what}. {origin}"]
    lines += [caution(done)] if caution(done) else []
    if published is not None:
        lines.append(f"Published: {published.citation}; {published.title}. {published.note}".strip())
    lines += _difference_lines(done, reference, columns)
    lines += _confusion_lines(done, class_names) if len(class_names) > 2 else []
    lines += ["", *(f"- {row.title} {row.status}: {row.reason}" for row in rows if row.reason)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines).rstrip() + "\n")


def confusion_shares(confusion: NDArray[np.int64], class_names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Percentage of each true class's pixels that were assigned to each class.

    >>> confusion_shares(np.array([[3, 1, 0], [0, 0, 0], [0, 1, 1]]), ["a", "b", "c"])
    [('a', ['75.0', '25.0', '0.0']), ('b', ['-', '-', '-']), ('c', ['0.0', '50.0', '50.0'])]
    """
    return [
        (name, [f"{100 * count / counts.sum():.1f}" if counts.any() else "-" for count in counts])
        for name, counts in zip(class_names, confusion, strict=True)
    ]


def _confusion_lines(rows: Sequence[MethodRow], class_names: Sequence[str]) -> list[str]:
    lines = []
    for row in rows:
        if row.confusion is not None and row.key != FLOOR:
            lines += ["", f"{row.title}: of each true class, per cent given to each class", ""]
            lines += ["| true class | " + " | ".join(class_names) + " |", "|" + "---|" * (len(class_names) + 1)]
            lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in confusion_shares(row.confusion, class_names)]
    return lines


def _against(
    rows: Sequence[MethodRow], reference: MethodRow | None, columns: Mapping[str, str], name: str
) -> dict[str, dict[str, str]]:
    """Headers of the columns of differences in one score, each with one text per row: to the reference, and to the floor."""
    floors = [row for row in rows if row.key == FLOOR]
    found = {}
    for other in dict.fromkeys(row.key for row in [reference, *floors] if row is not None):
        row = next(row for row in rows if row.key == other)
        of_rows = differences_to(row, rows, [name])
        found[f"{columns.get(name, name)} against {row.title}"] = {
            one.key: "-" if one.key == other else difference_text(of_rows.get(one.key, {}).get(name)) for one in rows
        }
    return found


def _difference_lines(rows: Sequence[MethodRow], reference: MethodRow | None, columns: Mapping[str, str]) -> list[str]:
    """The table of differences in every score to the reference."""
    if reference is None or len(rows) < 2:
        return []
    of_rows = differences_to(reference, rows, list(columns))
    lines = [
        "",
        f"Differences to {reference.title}, in points: paired, over the same draws of the same cases; in brackets the 95 %",
    ]
    lines[-1] += (
        " interval, then in how many draws the method is ahead. Use these, not overlaps of intervals, to compare methods."
    )
    lines += ["", "| method | " + " | ".join(columns.values()) + " |", "|" + "---|" * (len(columns) + 1)]
    for row in rows:
        if row.key in of_rows:
            cells = [difference_text(of_rows[row.key].get(name)) for name in columns]
            lines.append("| " + " | ".join([row.title, *cells]) + " |")
    return lines


def _number(value: float, digits: int = 6) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def _gib(size: int | None) -> str:
    return f"{size / 2**30:.1f}" if size else "-"


def _cell(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
