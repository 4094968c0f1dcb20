"""The table of a comparison: for programs (CSV) and for people (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.declarations.published import PublishedData
from shared.writers import atomic_path

from .intervals import Interval
from .runs import DONE, MethodRow

EFFORTS = ("labels", "areas", "masks")


def effort_text(effort: Mapping[str, int]) -> str:
    """What a method learned from, in words.

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
    ('50.0 (40.0 to 61.0)', '50.0', '-')
    """
    if interval is None or math.isnan(interval.mean):
        return "-"
    text = f"{100 * interval.mean:.1f}"
    return text if math.isnan(interval.low) else f"{text} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def write_csv(
    rows: Sequence[MethodRow],
    path: Path,
    names: Mapping[str, str],
    seconds: Mapping[str, float],
    published: PublishedData | None,
) -> None:
    """A row a method; scores are shares of 1, with the ends of their intervals beside them."""
    table = []
    for row in rows:
        cells: dict[str, Any] = {"method": row.key, "title": row.title, "status": row.status, "reason": row.reason}
        cells["seeds"] = " ".join(map(str, row.seeds))
        for name in names:
            score = row.scores.get(name)
            for part in ("mean", "low", "high"):
                cells[name if part == "mean" else f"{name}_{part}"] = _number(getattr(score, part) if score else math.nan)
        if published is not None:
            of_method = published.of(row.key)
            cells |= {
                f"published_{name}": of_method.get(name) for name in names if any(name in s for s in published.scores.values())
            }
        cells |= {name: row.effort.get(name) for name in EFFORTS}
        cells["annotation_minutes"] = round(effort_minutes(row.effort, seconds), 2) if row.effort else None
        cells["training_minutes"] = _number(row.training_minutes, 3)
        cells["seconds_per_image"] = _number(row.seconds_per_image, 3)
        cells["peak_gib"] = round(row.peak_bytes / 2**30, 3) if row.peak_bytes else None
        cells["settings"] = "; ".join(f"{name}={value}" for name, value in row.settings.items())
        table.append(cells)
    with atomic_path(path) as temporary:
        # Whole numbers stay whole where some rows have none.
        pd.DataFrame(table).astype(dict.fromkeys(EFFORTS, "Int64")).to_csv(temporary, index=False)


def write_markdown(
    rows: Sequence[MethodRow], path: Path, names: Mapping[str, str], published: PublishedData | None, unit: str, origin: str
) -> None:
    """The table for a README: scores in per cent with their intervals, what they are of, then what was skipped or failed."""
    done = [row for row in rows if row.status == DONE]
    columns = {name: title for name, title in names.items() if any(name in row.scores for row in done)}
    header = ["method", "labels", *columns.values(), "training, min", f"s a {unit}", "memory, GiB"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in done:
        seeds = f" ({len(row.seeds)} seeds)" if len(row.seeds) > 1 else ""
        cells = [row.title + seeds, effort_text(row.effort), *(percent(row.scores.get(name)) for name in columns)]
        cells += [_cell(row.training_minutes, 1), _cell(row.seconds_per_image, 2)]
        cells += [f"{row.peak_bytes / 2**30:.1f}" if row.peak_bytes else "-"]
        lines.append("| " + " | ".join(cells) + " |")
        of_method = published.of(row.key) if published is not None else {}
        if of_method:
            cells = [f"{row.title}, published", "", *(f"{100 * of_method[n]:.1f}" if n in of_method else "" for n in columns)]
            lines.append("| " + " | ".join([*cells, "", "", ""]) + " |")
    lines += ["", f"Scores in per cent, in brackets the 95 % interval over patients and seeds. {origin}"]
    if published is not None:
        lines.append(f"Published: {published.citation}; {published.title}. {published.note}".strip())
    lines += [f"- {row.title} {row.status}: {row.reason}" for row in rows if row.reason]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _number(value: float, digits: int = 6) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def _cell(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
