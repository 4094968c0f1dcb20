"""What a method's scores are made of: its trainings one by one, and the test cases one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.writers import atomic_path

from ..rows.method_row import DONE, MethodRow
from ..scores.intervals import Draws


@dataclass(frozen=True)
class CaseValue:
    """The score of a method on one test case, mean over its trainings.

    Attributes:
        case: its name.
        value: share of 1.
        has_tumour: of one without, the value is its specificity.
    """

    case: str
    value: float
    has_tumour: bool


def case_values(draws: Draws, num_classes: int) -> list[CaseValue]:
    """One number per case, the worst case first: the IoU, where there is no tumour the specificity; of several classes the
    accuracy."""
    each = draws.of_each_case
    found = []
    for index, case in enumerate(draws.cases):
        has_tumour = not isnan(each["sensitivity"][index])
        name = "class_accuracy" if num_classes > 2 else "iou" if has_tumour else "specificity"
        found.append(CaseValue(case, float(each[name][index]), has_tumour))
    return sorted((one for one in found if not isnan(one.value)), key=lambda one: one.value)


def worst_cases(rows: Sequence[MethodRow], num_classes: int, count: int) -> list[str]:
    """Names of the cases on which the methods do worst in the mean, the worst first."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.status == DONE and row.draws is not None and not row.is_baseline:
            for one in case_values(row.draws, num_classes):
                values.setdefault(one.case, []).append(one.value)
    return sorted(values, key=lambda case: sum(values[case]) / len(values[case]))[:count]


def write_seeds(rows: Sequence[MethodRow], path: Path, names: Mapping[str, str]) -> None:
    """One row per training: its scores on all test cases, shares of 1."""
    _write_scores(path, "seed", names, [(row.key, row.seeds, row.draws.trainings) for row in rows if row.draws is not None])


def write_cases(rows: Sequence[MethodRow], path: Path, names: Mapping[str, str]) -> None:
    """One row per method and test case: its scores, means over the trainings; empty where one is 0/0."""
    scored = [(row.key, row.draws.cases, row.draws.of_each_case) for row in rows if row.draws is not None]
    _write_scores(path, "case", names, scored)


def _write_scores(
    path: Path,
    column: str,
    names: Mapping[str, str],
    scored: Iterable[tuple[str, Sequence[Any], Mapping[str, NDArray[np.float64]]]],
) -> None:
    """One row for each of a method's trainings or cases, which `column` names, with those of the scores that it has."""
    table = [
        {"method": method, column: one} | {name: scores[name][index] for name in names if name in scores}
        for method, each, scores in scored
        for index, one in enumerate(each)
    ]
    _write(pd.DataFrame(table, columns=["method", column, *names]), path)


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.round(6).to_csv(temporary, index=False)
