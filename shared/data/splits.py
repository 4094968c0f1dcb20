"""Seeded, label-stratified parts of a manifest: a split, the folds of a cross-validation, a share of the training images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

Record = dict[str, Any]

SPLITS = ("train", "val", "test")


def assign_splits(records: Sequence[Record], fractions: Sequence[float] = (0.65, 0.15, 0.2), seed: int = 0) -> None:
    """Fill ``split`` of every record in place.

    A case (``case_id``, or the image itself where there is none) goes to one split as a whole. Cases are shuffled within
    their label (a case's label is its largest) and dealt out: one to every split, so that three cases of a label are
    enough for a small data set, then each to the split that is furthest below its share of images of that label.

    Args:
        records: manifest records; ``label`` may be None throughout.
        fractions: shares of train, val and test; their sum is 1.
        seed: of the shuffle; the same records and seed give the same split, whatever the order of the rows.
    """
    cases, strata = _cases_by_label(records)
    rng = np.random.default_rng(seed)
    for label in sorted(strata):
        names = [strata[label][index] for index in rng.permutation(len(strata[label]))]
        total = sum(len(cases[name]) for name in names)
        missing = np.asarray(fractions, dtype=float) * total
        waiting = [split for split in np.argsort(-missing, kind="stable") if fractions[split] > 0]
        for name in names:
            chosen = waiting.pop(0) if waiting else int(np.argmax(missing))
            missing[chosen] -= len(cases[name])
            for record in cases[name]:
                record["split"] = SPLITS[chosen]


def assign_folds(records: Sequence[Record], num_folds: int, fold: int, seed: int = 0) -> None:
    """Fill ``split`` of every record in place, for one run of a k-fold cross-validation.

    The records of fold `fold` are the test split, those of the next fold (the first after the last) the val split, all others
    the train split: over the runs 0 to k - 1 every image is tested once. A case stays whole, as in `assign_splits`. Cases are
    shuffled within their label (a case's label is its largest) and dealt to the fold that has the fewest images of such cases,
    and of those to the one with the fewest images. With fewer cases of a label than folds, some folds have none.

    Args:
        records: manifest records.
        num_folds: k, at least 3: one to train, one to validate, one to test.
        fold: 0 to k - 1.
        seed: of the shuffle; the same records and seed give the same folds, whatever the order of the rows.

    Raises:
        ValueError: for a number out of range, or fewer cases than folds.
    """
    if num_folds < 3 or fold not in range(num_folds):
        raise ValueError(f"need num_folds >= 3 and fold in 0..num_folds - 1; got num_folds={num_folds}, fold={fold}")
    cases, strata = _cases_by_label(records)
    if len(cases) < num_folds:
        raise ValueError(f"{len(cases)} cases are too few for {num_folds} folds: a case stays whole")
    rng = np.random.default_rng(seed)
    totals = np.zeros(num_folds, dtype=int)
    for label in sorted(strata):
        sizes = np.zeros(num_folds, dtype=int)
        for index in rng.permutation(len(strata[label])):
            case = cases[strata[label][index]]
            chosen = int(np.lexsort((totals, sizes))[0])
            sizes[chosen] += len(case)
            totals[chosen] += len(case)
            split = {fold: "test", (fold + 1) % num_folds: "val"}.get(chosen, "train")
            for record in case:
                record["split"] = split


def take_share(records: Sequence[Record], share: float, seed: int = 0) -> list[Record]:
    """The given share of the records of each label, drawn at random: how well a method does with less data.

    Smaller shares lie within larger ones: the 20 % are part of the 40 %. Of each label at least one record is taken.

    Args:
        records: manifest records.
        share: in (0, 1]; the count of a label is rounded.
        seed: of the draw; the same records and seed give the same part, whatever the order of the rows.

    Returns:
        The records themselves, in their order.

    Raises:
        ValueError: if the share is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of the records must be in (0, 1]; got {share}")
    strata: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(records)), key=lambda index: _place(records[index])):
        strata[records[index].get("label") or 0].append(index)
    rng = np.random.default_rng(seed)
    taken: list[int] = []
    for label in sorted(strata):
        order = rng.permutation(strata[label])
        taken += order[: max(1, round(share * len(order)))].tolist()
    return [records[index] for index in sorted(taken)]


def _place(record: Record) -> str:
    """Names a record among all of a manifest: its image and region."""
    return repr([record["image"], *(record.get(name) for name in ("x", "y", "width_px", "height_px"))])


def _cases_by_label(records: Sequence[Record]) -> tuple[dict[str, list[Record]], dict[int, list[str]]]:
    """The records of each case, and the sorted names of the cases of each label."""
    # An image may name its case in some of its rows only.
    case_of: dict[str, str] = {record["image"]: record["case_id"] for record in records if record["case_id"]}
    cases: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        image: str = record["image"]
        cases[case_of.get(image, image)].append(record)
    strata: dict[int, list[str]] = defaultdict(list)
    for name in sorted(cases):
        strata[max(record["label"] or 0 for record in cases[name])].append(name)
    return cases, strata
