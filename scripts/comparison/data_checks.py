"""What a manifest must hold to compare methods on it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from shared.data import record_error
from shared.data.record import Record, has_known_mask
from shared.evaluation.maps.scoring_grid import ScoringGrid
from shared.wsi import open_slide

from .data import ComparisonData
from .scores.scoring import map_class_names

logger = logging.getLogger(__name__)


def check_comparable(data: ComparisonData, mpp: float = 1.0) -> None:
    """Check that there is something to learn and something to score; warn of classes that are learned and not scored, of rows
    with tumour that are not scored, and of scored rows of which nobody has said whose they are.

    Args:
        data: to compare on.
        mpp: micrometres per pixel at which maps will be scored.

    Raises:
        ValueError: naming what is missing, where, and what to do.
    """
    file, records, names = data.manifest, data.rows, data.class_names
    splits = Counter(str(record["split"]) for record in records)
    present = ", ".join(f"{number} of {split!r}" for split, number in splits.items())
    cases = {record["case_id"] or record["image"] for record in records}
    for split in ("train", "test"):
        if not splits[split]:
            few = f"; all are of one case, {next(iter(cases))}, and cases are never divided" if len(cases) == 1 else ""
            raise ValueError(
                f"{file} has no row of the split {split!r}: expected rows to train on and rows to score, found {present}{few}"
            )
    _check_test(file, [record for record in records if record["split"] == "test"], names)
    classes = {unit: _classes(rows, "train") for unit, rows in data.training.items()}
    known = {label for found in classes.values() for label in found}
    if known and all(len({label > 0 for label in found}) < 2 for found in classes.values() if found):
        found = ", ".join(f"{label} ({names[label]})" for label in sorted(known))
        raise ValueError(
            f"{file}: all {splits['train']} rows of the split 'train' have the same label, {found}: expected rows with label 0 "
            f"({names[0]}) and rows with a label above 0. Add the others, or move cases between the splits"
        )
    _check_classes(data, known)
    _check_masks(data, mpp)
    _warn_of_unscored_tumour(data)
    _check_cases(data)


def _check_test(file: Path, test: Sequence[Record], names: Sequence[str]) -> None:
    """There are masks, and tumour in some of what is scored."""
    scored = [record for record in test if has_known_mask(record)]
    masks = sum(record["mask"] is not None for record in test)
    tumour = sum(record["label"] is None or record["label"] > 0 for record in test)
    if not scored or (tumour and not any(record["mask"] is not None and record["label"] != 0 for record in scored)):
        raise ValueError(
            f"{file}: {tumour} of the {len(test)} rows of the split 'test' have a label above 0, and {masks} have a mask: "
            "expected masks for the rows with tumour, because without them there is nothing to score. Fill the column 'mask' "
            "of the test rows"
        )
    if not tumour:
        raise ValueError(
            f"{file}: all {len(test)} rows of the split 'test' have label 0 ({names[0]}): expected rows with tumour among "
            "them. Add some, or move cases between the splits"
        )


def _check_masks(data: ComparisonData, mpp: float) -> None:
    """Some scored pixel is tumour: the masks are read up to the first one, at the pixel size of the scores."""
    masked = [record for record in data.records if record["mask"] is not None]
    # Those with tumour first: of them the first mask has it, if masks and labels agree.
    if any(_has_tumour(record, data, mpp) for record in sorted(masked, key=lambda record: record["label"] == 0)):
        return
    tumour = [record for record in masked if record["label"] != 0]
    first = tumour[0]
    raise ValueError(
        f"{data.manifest}: none of the {len(masked)} masks of the scored rows of the split 'test' has a pixel of tumour at "
        f"{mpp:g} um per pixel, though {len(tumour)} of these rows do not have label 0, such as row {first['row']} with "
        f"{first['mask']}: expected masks in which tumour is not 0 (of several classes the index of the class), because without "
        "it nothing can be scored. Correct these masks"
    )


def _has_tumour(record: Record, data: ComparisonData, mpp: float) -> bool:
    try:
        slide = open_slide(record["image"], mpp=record["mpp"])
        row = {"width_px": str(slide.size_px[0]), "height_px": str(slide.size_px[1]), "mpp": str(slide.mpp)}
        grid = ScoringGrid.of_mpp(record, row, mpp, map_class_names(data))
        return any(grid.truth(top, height).any() for top, height in grid.strips())
    except (ValueError, OSError) as error:
        raise record_error(record, error) from error


def _warn_of_unscored_tumour(data: ComparisonData) -> None:
    """Tumour without masks is left out of the scores, and normal tissue is not."""
    tumour, normal = (
        [row for row in data.rows if row["split"] == "test" and (row["label"] != 0) == has_tumour] for has_tumour in (True, False)
    )
    unscored = sum(row["mask"] is None for row in tumour)
    if unscored:
        kept = sum(record["label"] == 0 for record in data.records)
        said = f"{unscored} of the {len(tumour)} rows of the split 'test' without label 0 have no mask and are not scored"
        if kept:
            said += (
                f", while {kept} of the {len(normal)} rows with label 0 are: scores that count both, such as IoU and F1, are of "
                "less tumour than there is"
            )
        logger.warning("%s: %s. Fill the column 'mask'", data.manifest, said)


def _check_classes(data: ComparisonData, known: set[int]) -> None:
    """Nothing is chosen by or scored that nothing could have learned; what is learned and not scored is warned of."""
    file, records, names = data.manifest, data.rows, data.class_names
    for split in ("val", "test"):
        there = _classes(records, split)
        unknown = sorted(set(there) - known) if known else []
        if unknown:
            found = ", ".join(f"{label} ({names[label]})" for label in sorted(known))
            raise ValueError(
                f"{file}: the split {split!r} has label {_named(unknown, there, names)}, which no row of the split 'train' has; "
                f"labels there: {found}. Move cases between the splits, or give --class_names without it"
            )
    unscored = unscored_classes(data)
    if unscored:
        logger.warning("%s: %s Move cases between the splits to score it", file, unscored[0].lower() + unscored[1:])


def unscored_classes(data: ComparisonData) -> str:
    """What is to be said of classes that are learned and that no scored row has; empty where there is none."""
    learned, scored = _classes(data.rows, "train"), _classes(data.records, "test")
    # Of the background there are pixels in every mask.
    missing = sorted(set(learned) - set(scored) - {0}) if scored else []
    if not missing:
        return ""
    average = ", and macro F1 is the mean of the other classes" if data.num_classes > 2 else ""
    return (
        f"No scored row of the split 'test' has label {_named(missing, learned, data.class_names)} of the split 'train'. Pixels "
        "of such a class are scored only where masks of other test rows contain it; if none does, its score cannot be measured"
        f"{average}."
    )


def _check_cases(data: ComparisonData) -> None:
    """Without patients, those that intervals are over are images."""
    unnamed = sum(not record["case_id"] for record in data.records)
    if unnamed:
        logger.warning(
            "%s: %d of the %d scored rows of the split 'test' have no case_id: each of their images is drawn by itself, and "
            "where several are of one patient, intervals are too narrow. Fill the column 'case_id'",
            data.manifest,
            unnamed,
            len(data.records),
        )


def _named(labels: Sequence[int], counts: Counter[int], names: Sequence[str]) -> str:
    return ", ".join(f"{label} ({names[label]}, {counts[label]} rows)" for label in labels)


def _classes(records: Sequence[Record], split: str) -> Counter[int]:
    return Counter(record["label"] for record in records if record["split"] == split and record["label"] is not None)
