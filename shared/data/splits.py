"""A seeded, label-stratified, case-disjoint split for manifests that come without one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")


def assign_splits(records: Sequence[dict[str, Any]], fractions: Sequence[float] = (0.65, 0.15, 0.2), seed: int = 0) -> None:
    """Fill ``split`` of every record in place.

    A case (``case_id``, or the image itself where there is none) goes to one split as a whole. Cases are shuffled within
    their label (a case's label is its largest) and dealt out: one to every split, so that three cases of a label are
    enough for a small data set, then each to the split that is furthest below its share of images of that label.

    Args:
        records: manifest records; ``label`` may be None throughout.
        fractions: shares of train, val and test; their sum is 1.
        seed: of the shuffle; the same records and seed give the same split, whatever the order of the rows.
    """
    # An image may name its case in some of its rows only.
    case_of = {record["image"]: record["case_id"] for record in records if record["case_id"]}
    cases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        cases[case_of.get(record["image"], record["image"])].append(record)
    strata: dict[int, list[str]] = defaultdict(list)
    for name in sorted(cases):
        strata[max(record["label"] or 0 for record in cases[name])].append(name)
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
