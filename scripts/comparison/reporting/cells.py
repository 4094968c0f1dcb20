"""Cells of the tables of a report's page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.declarations.published import PublishedData

from ..rows.method_row import MethodRow
from ..scores.intervals import Difference, Interval
from .table import ahead_text, range_text, signed_text


@dataclass(frozen=True)
class Cell:
    """A cell of the table that can be sorted.

    Attributes:
        value: to sort by; None stands last.
        text: to read.
        range: the interval, to read.
        low: its lower end, in per cent of the scale.
        high: its upper end.
        published: of the paper, to read.
        ahead: of a difference, in how many draws the method is ahead, to read.
    """

    value: float | None
    text: str
    range: str = ""
    low: float | None = None
    high: float | None = None
    published: str = ""
    ahead: str = ""


def score_cells(row: MethodRow, names: Mapping[str, str], published: PublishedData | None) -> list[Cell]:
    """A method's scores as cells, in per cent, beside what papers report of it.

    Args:
        row: the method's.
        names: of the scores, in the order of the cells.
        published: on the same data; None where they are no paper's.
    """
    of_method = published.of(row.key, row.config) if published is not None else {}
    return [_score_cell(row.scores.get(name), of_method.get(name)) for name in names]


def _score_cell(score: Interval | None, published: float | None) -> Cell:
    paper = "" if published is None else f"{100 * published:.1f}"
    if not is_number(score) or score is None:
        return Cell(None, "–", published=paper)
    mean, low, high = (100 * value for value in (score.mean, score.low, score.high))
    ends = range_text(score, "–")
    if not ends:
        return Cell(mean, f"{mean:.1f}", "–", published=paper)
    return Cell(mean, f"{mean:.1f}", ends, low, high, paper)


def is_number(score: Interval | None) -> bool:
    """Whether there is a score, and not only NaN, as where a class is missing."""
    return score is not None and not math.isnan(score.mean)


def seed_rows(rows: Sequence[MethodRow], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Readable scores of each training, for methods with several trainings."""
    return [
        {
            "title": row.title,
            "seed": seed,
            "cells": [_percent(row.draws.trainings[name][index]) if name in row.draws.trainings else "–" for name in names],
        }
        for row in rows
        if row.draws is not None and len(row.seeds) > 1
        for index, seed in enumerate(row.seeds)
    ]


def difference_cell(difference: Difference | None, is_reference: bool = False) -> Cell:
    """A difference in points, its interval and the draws ahead; that of the reference to itself is named.

    >>> difference_cell(Difference(-0.15, -0.343, 0.086, 0.118))
    Cell(value=-15.0, text='-15.0', range='-34.3 to 8.6', low=None, high=None, published='', ahead='ahead in 12 %')
    >>> difference_cell(Difference(0.0, math.nan, math.nan, 0.5)).range, difference_cell(None, is_reference=True).text
    ('–', 'reference')
    """
    if is_reference:
        return Cell(None, "reference")
    if difference is None or math.isnan(difference.mean):
        return Cell(None, "–")
    ends = range_text(difference, " to ")
    ahead = ahead_text(difference) if ends else ""
    return Cell(100 * difference.mean, signed_text(difference.mean), ends or "–", ahead=ahead)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"
