"""Seeded, label-stratified parts of a manifest: a split, the folds of a cross-validation, a share of the training images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..wsi.file_names import comparable
from .record import Record

SPLITS = ("train", "val", "test")


def assign_splits(records: Sequence[Record], fractions: Sequence[float] = (0.65, 0.15, 0.2), seed: int = 0) -> None:
    """Fill ``split`` of every record in place.

    A case (``case_id``, or the image itself where there is none) goes to one split as a whole. Cases are shuffled within
    those with the same labels (only tumour; tumour and normal; ...) and dealt out: one to every split, so that three such cases
    are enough for a small data set, then each to the split that is furthest below its share of these cases' images. Where
    fewer than three cases have the same several labels, each counts as one of its largest label alone.

    Args:
        records: manifest records; ``label`` may be None throughout.
        fractions: shares of train, val and test; their sum is 1.
        seed: of the shuffle; the same records and seed give the same split, whatever the order of the rows.
    """
    cases, strata = _cases_by_labels(records, len(SPLITS))
    rng = np.random.default_rng(seed)
    for labels in sorted(strata):
        names = [strata[labels][index] for index in rng.permutation(len(strata[labels]))]
        total = sum(len(cases[name]) for name in names)
        missing = np.asarray(fractions, dtype=float) * total
        waiting = [split for split in np.argsort(-missing, kind="stable") if fractions[split] > 0]
        for name in names:
            chosen = waiting.pop(0) if waiting else int(np.argmax(missing))
            missing[chosen] -= len(cases[name])
            for record in cases[name]:
                record["split"] = SPLITS[chosen]


def assign_folds(records: Sequence[Record], num_folds: int, fold: int, seed: int = 0, validates: bool = True) -> None:
    """Fill ``split`` of every record in place, for one run of a k-fold cross-validation.

    The records of fold `fold` are the test split, those of the next fold (the first after the last) the val split, all others
    the train split: over the runs 0 to k - 1 every image is tested once. A case stays whole, as in `assign_splits`. Cases are
    shuffled within those with the same labels (only tumour; tumour and normal; ...) and dealt to the fold that has the fewest
    images of such cases, and of those to the one with the fewest images. With fewer such cases than folds, some folds have
    none.

    Args:
        records: manifest records.
        num_folds: k, at least 3: one to train, one to validate, one to test.
        fold: 0 to k - 1.
        seed: of the shuffle; the same records and seed give the same folds, whatever the order of the rows.
        validates: False trains on the next fold too, and leaves no val split.

    Raises:
        ValueError: for a number out of range, or fewer cases than folds.
    """
    if num_folds < 3 or fold not in range(num_folds):
        raise ValueError(f"need num_folds >= 3 and fold in 0..num_folds - 1; got num_folds={num_folds}, fold={fold}")
    cases, strata = _cases_by_labels(records)
    if len(cases) < num_folds:
        raise ValueError(f"{len(cases)} cases are too few for {num_folds} folds: cases are never divided")
    rng = np.random.default_rng(seed)
    totals = np.zeros(num_folds, dtype=int)
    for labels in sorted(strata):
        sizes = np.zeros(num_folds, dtype=int)
        for index in rng.permutation(len(strata[labels])):
            case = cases[strata[labels][index]]
            chosen = int(np.lexsort((totals, sizes))[0])
            sizes[chosen] += len(case)
            totals[chosen] += len(case)
            split = {fold: "test", (fold + 1) % num_folds: "val" if validates else "train"}.get(chosen, "train")
            for record in case:
                record["split"] = split


def rotate_validation(records: Sequence[Record], case: str | int) -> None:
    """Let one case outside the training validate, and test on the others: change ``split`` of the records in place.

    Args:
        records: manifest records whose splits are known.
        case: ``case_id``, or the name of the image without its ending, of a case of the val or the test split. A command line
            turns a number into an integer.

    Raises:
        ValueError: naming the cases that there are, if none of them is this one.
    """
    case_of, case = _case_of_image(records), str(case)
    names = [case_of.get(record["image"], Path(record["image"]).stem) for record in records]
    outside = sorted({name for name, record in zip(names, records, strict=True) if record["split"] != "train"})
    # However its accents are written.
    case = next((name for name in outside if comparable(name) == comparable(str(case))), case)
    if case not in outside:
        raise ValueError(f"no case {case!r} outside the training images can validate; there are {', '.join(outside) or 'none'}")
    for name, record in zip(names, records, strict=True):
        if record["split"] != "train":
            record["split"] = "val" if name == case else "test"


def left_for_folds(records: Sequence[Record]) -> list[Record]:
    """The records of which folds are made: all but those of cases that have a row of the test split.

    Raises:
        ValueError: if none is left.
    """
    case_of = _case_of_image(records)
    names = [case_of.get(record["image"], record["image"]) for record in records]
    kept_back = {name for name, record in zip(names, records, strict=True) if record["split"] == "test"}
    left = [record for name, record in zip(names, records, strict=True) if name not in kept_back]
    if not left:
        raise ValueError(
            f"all {len(records)} rows are of the split 'test' or of its cases, and folds are made of the others: leave "
            "out the column 'split', or assign the rows to splits there"
        )
    return left


def copies_in_two_splits(slides: Sequence[tuple[Record, str, str | None]]) -> list[tuple[Record, str]]:
    """What is wrong with images of which another split has a copy, or may get one.

    Args:
        slides: of each record the key of its image's content, and its split: None where splits are drawn later, case by case.

    Returns:
        The records, each with its problem, which names the first image of the same content.
    """
    case_of = _case_of_image([record for record, *_ in slides])
    first: dict[str, tuple[Record, str | None]] = {}
    problems = []
    for record, key, split in slides:
        other, other_split = first.setdefault(key, (record, split))
        case = case_of.get(record["image"])
        is_together = split == other_split if split is not None else case is not None and case == case_of.get(other["image"])
        if record["image"] == other["image"] or is_together:
            continue
        where = (
            "two splits may be drawn with one slide in both"
            if split is None
            else f"one slide is in the splits {other_split} and {split}"
        )
        what = f"it has the same content as {other['image']} (row {other.get('row')}): {where}"
        problems.append((record, f"{what}, which makes the test meaningless; keep one"))
    return problems


def why_empty(records: Sequence[Record], split: str, has_splits: bool) -> str:
    """Why a manifest has no record of a split: no row names it, there is none of this name among those that are drawn where no
    row names one (`has_splits` False), or there are too few cases to draw it."""
    if has_splits:
        found = Counter(record["split"] for record in records)
        there = ", ".join(f"{name!r} ({found[name]} rows)" for name in SPLITS if found[name])
        return f"has no row with split {split!r}; its splits are {there}: add some, or leave out the column 'split'."
    if split not in SPLITS:
        return f"has no split {split!r}; it assigns its rows to none, so that they are drawn: name one of {', '.join(SPLITS)}."
    labels: dict[str, int] = {}
    for record in records:
        case = record["case_id"] or record["image"]
        labels[case] = max(labels.get(case, 0), record["label"] or 0)
    counts = ", ".join(f"{list(labels.values()).count(label)} with label {label}" for label in sorted({0, 1, *labels.values()}))
    return (
        f"has too few cases to make a split {split!r}: {counts}. Cases are never divided, so {', '.join(SPLITS)} need "
        f"{len(SPLITS)} cases of each label; add some, or assign the rows to splits in a column 'split'."
    )


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


def take_number(records: Sequence[Record], number: int | None, seed: int = 0) -> Sequence[Record]:
    """At most a number of records, drawn at random, with each label's share of them kept.

    Args:
        records: manifest records.
        number: to take, at least one for each label; the counts of the labels are rounded so that they add up to it. None, or as
            many as there are, takes all.
        seed: of the draw; the same records and seed give the same part, whatever the order of the rows.

    Returns:
        The records themselves, in their order.

    Raises:
        ValueError: if there are more labels than records to take.
    """
    if number is None or number >= len(records):
        return records
    strata: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(records)), key=lambda index: _place(records[index])):
        strata[records[index].get("label") or 0].append(index)
    if number < len(strata):
        raise ValueError(f"{number} of {len(records)} records cannot hold each of the {len(strata)} labels: take more")
    exact = {label: number * len(indices) / len(records) for label, indices in strata.items()}
    counts = {label: max(1, int(count)) for label, count in exact.items()}
    # One at a time to or from the label that is furthest from its share; at least one of each stays.
    while (missing := number - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [label for label in sorted(counts) if counts[label] + step >= 1]
        counts[max(movable, key=lambda label: step * (exact[label] - counts[label]))] += step
    rng = np.random.default_rng(seed)
    taken = [index for label in sorted(strata) for index in rng.permutation(strata[label])[: counts[label]].tolist()]
    return [records[index] for index in sorted(taken)]


def _place(record: Record) -> str:
    """Names a record among all of a manifest: its image and region."""
    return repr([record["image"], *(record.get(name) for name in ("x", "y", "width_px", "height_px"))])


def _case_of_image(records: Sequence[Record]) -> dict[str, str]:
    """Image -> ``case_id`` of those that name one, if only in some of their rows."""
    return {record["image"]: case for record in records if (case := record.get("case_id"))}


def _cases_by_labels(
    records: Sequence[Record], least_cases: int = 1
) -> tuple[dict[str, list[Record]], dict[tuple[int, ...], list[str]]]:
    """The records of each case, and the sorted names of the cases with each set of labels.

    A set that fewer than `least_cases` cases have is taken for its largest label.
    """
    case_of = _case_of_image(records)
    cases: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        image: str = record["image"]
        cases[case_of.get(image, image)].append(record)
    labels_of = {
        name: tuple(sorted({record["label"] for record in case if record["label"] is not None})) or (0,)
        for name, case in cases.items()
    }
    num_cases = Counter(labels_of.values())
    strata: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in sorted(cases):
        labels = labels_of[name]
        strata[labels if num_cases[labels] >= least_cases else labels[-1:]].append(name)
    return cases, strata
