"""Paired differences between methods: how far apart they are on the same draws of cases, and how often which is ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from shared.writers import atomic_path

from .ceilings import CEILINGS
from .intervals import Difference, best_method
from .method_row import DONE, MethodRow

# What every method has to beat.
FLOOR = "everything_is_tumour"


def reference_of(rows: Sequence[MethodRow], wanted: str | None, name: str) -> MethodRow | None:
    """The row that all others are compared with: the wanted one, else the method with the best score that is no baseline.

    Args:
        rows: of the comparison so far.
        wanted: a method or baseline, as on the command line; where it has no result (yet), the best one stands in for it.
        name: of the score.
    """
    known = {row.key: row for row in rows if row.status == DONE and row.draws is not None}
    if wanted in known:
        return known[wanted]
    best = best_method({key: row.draws for key, row in known.items() if row.draws and not row.is_baseline}, name)
    return None if best is None else known[best]


def differences_to(reference: MethodRow, rows: Sequence[MethodRow], names: Sequence[str]) -> dict[str, dict[str, Difference]]:
    """Method -> score -> its difference to the reference; none of the reference itself."""
    if reference.draws is None:
        return {}
    return {
        row.key: {
            name: row.draws.difference(reference.draws, name)
            for name in names
            if name in row.draws.trainings and name in reference.draws.trainings
        }
        for row in rows
        if row.draws is not None and row.key != reference.key
    }


def verdict(row: MethodRow, rows: Sequence[MethodRow], name: str) -> str:
    """The note on a method that is not ahead of the floor by its paired interval; nothing of one that is.

    Args:
        row: the method.
        rows: the floor among them, or there is nothing to say.
        name: of the score.
    """
    floor = next((one for one in rows if one.key == FLOOR and one.draws is not None), None)
    if floor is None or row.draws is None or row.key in (FLOOR, *CEILINGS) or name not in row.draws.trainings:
        return ""
    difference = row.draws.difference(floor.draws, name) if floor.draws is not None else None
    if difference is None or math.isnan(difference.mean):
        return ""
    title = f"“{floor.title[0].lower()}{floor.title[1:]}”"
    if difference.mean < 0:
        return f"below {title}"
    return "" if difference.is_known and difference.low > 0 else f"not distinguishable from {title}"


def difference_text(difference: Difference | None) -> str:
    """A difference in per cent with its interval and the share of the draws in which the method is ahead.

    >>> difference_text(Difference(-0.15, -0.343, 0.086, 0.118)), difference_text(None)
    ('-15.0 (-34.3 to 8.6), ahead in 12 %', '-')
    """
    if difference is None or math.isnan(difference.mean):
        return "-"
    text = f"{100 * difference.mean:+.1f}"
    if not difference.is_known:
        return text
    low, high = (f"{100 * end:.1f}" for end in (difference.low, difference.high))
    return f"{text} ({low} to {high}), ahead in {_whole_percent(difference.ahead)}"


def _whole_percent(share: float) -> str:
    """Not 0 % or 100 % where it is not.

    >>> _whole_percent(0.0), _whole_percent(0.001), _whole_percent(0.999), _whole_percent(0.5)
    ('0 %', 'under 1 %', 'over 99 %', '50 %')
    """
    if 0 < share < 0.005:
        return "under 1 %"
    return "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def write_differences(rows: Sequence[MethodRow], path: Path, names: Mapping[str, str]) -> None:
    """A row for each two methods and score: shares of 1, with the ends of their intervals and the share of draws ahead."""
    table = [
        {
            "method": key,
            "reference": reference.key,
            "score": name,
            "difference": one.mean,
            "low": one.low,
            "high": one.high,
            "ahead": one.ahead,
        }
        for reference in rows
        for key, of_method in differences_to(reference, rows, list(names)).items()
        for name, one in of_method.items()
    ]
    columns = ["method", "reference", "score", "difference", "low", "high", "ahead"]
    with atomic_path(path) as temporary:
        pd.DataFrame(table, columns=columns).round(6).to_csv(temporary, index=False)
