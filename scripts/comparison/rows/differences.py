"""Paired differences between methods: how far apart they are on the same draws of cases, and how often which is ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from shared.writers import atomic_path

from ..scores.ceilings import CEILINGS
from ..scores.intervals import Difference, best_method
from .method_row import DONE, FAILED, MethodRow

# What every method has to beat.
FLOOR = "everything_is_tumour"
# Verdicts on what does not.
_BELOW, _LEVEL = "below", "not distinguishable from"


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


def reference_note(rows: Sequence[MethodRow], wanted: str | None, shown: MethodRow | None) -> str:
    """What is to be said where another than the wanted reference is shown; empty where it is not.

    >>> reference_note([MethodRow("cmil", "C-MIL", "failed")], "cmil", MethodRow("camel", "CAMEL"))
    'The reference cmil failed: differences are to the best method instead, CAMEL.'
    """
    if wanted is None or shown is None or shown.key == wanted:
        return ""
    row = next((row for row in rows if row.key == wanted), None)
    why = "has no result" if row is None or row.status == DONE else "failed" if row.status == FAILED else f"was {row.status}"
    return f"The reference {wanted} {why}: differences are to the best method instead, {shown.title}."


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
    """The note on a method that is not ahead of the floor by its paired interval, or is so in a single training, of whose like
    the interval says nothing; empty for one that is ahead in several.

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
    if difference.is_known and difference.high < 0:
        return f"{_BELOW} {title}"
    if not difference.is_known or difference.low <= 0:
        return f"{_LEVEL} {title}"
    return f"ahead of {title} in one training; others are unknown" if row.is_of_one_training else ""


def remedy(row: MethodRow, rows: Sequence[MethodRow], name: str) -> str:
    """What to compare too where a method that reads pixels is not shown ahead of the floor; empty where nothing is to be said.

    From few images of real tissue a network learns little from random weights, and more on features of an encoder.

    Args:
        row: the method.
        rows: the floor among them; of a method that is there nothing is said.
        name: of the score.
    """
    fails = verdict(row, rows, name).startswith((_BELOW, _LEVEL))
    there = {one.key for one in rows}
    return f"on features: --methods {row.on_features}" if fails and row.on_features and row.on_features not in there else ""


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
