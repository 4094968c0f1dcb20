"""The report on a cohort's finished maps: metrics and a row per slide, for `scripts/evaluate.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...data.record import Record
from ...metrics.classes import class_scores
from ...metrics.ranking import roc_auc
from ..class_report import compared_class_scores, confusion_row, mean_class_scores, scores_of_class
from ..report import COUNTS, number, pooled_scores
from .cohort import MapCohort
from .counts import PARTS, MapCounts, least_value, means_of_slides
from .lesion_froc import SMALLEST_PROBABILITY, MapFROC, froc_slide
from .map_folder import slide_name

FROC_MPP = 16.0
# Part of the pixels -> what the metrics of classes in it are called, and the confusion matrix.
CLASS_KINDS = {"tissue": ("class_pixels", "confusion"), "all": ("class_pixels_all", "confusion_all")}


def tumour_map_report(
    cohort: MapCohort, threshold: float, froc_mpp: float = FROC_MPP
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pixel scores, AUCs and FROC of maps of tumour.

    Pixels are those of the maps, scored twice: in tissue only, and with the background, which scores 0 whatever the map says of
    it. Scores are of pooled pixels; ``mean_slide_auc`` and ``mean_slide_iou`` are means over the slides with tumour.

    Args:
        cohort: of the maps.
        threshold: probability from which a map pixel is tumour.
        froc_mpp: micrometres per pixel, about, of the grid on which lesions are looked for; CAMELYON16's level 6 is 15.6.

    Returns:
        metrics of the cohort, and a row per slide.

    Raises:
        ValueError: for numbers out of range, and as `MapCohort.counts`.
    """
    if not 0 < threshold <= 1 or froc_mpp <= 0:
        raise ValueError(f"need 0 < threshold <= 1 and froc_mpp > 0, got {threshold=}, {froc_mpp=}")
    least, slides, rows = least_value(threshold), [], []
    for record, counts in cohort.counts():
        slides.append(counts)
        rows.append(_tumour_row(record, counts, least))
    pooled = MapCounts.pooled(slides)
    metrics = {
        **_left_out(cohort),
        "threshold": threshold,
        "slides": {"auc": _slide_auc(rows)},
        **{f"pixels_{part}": pooled.scores(part, least) | means_of_slides(slides, part, least) for part in PARTS},
        "lesions": MapFROC(
            [froc_slide(cohort.folder, record, froc_mpp) for record in cohort.records],
            # What the maps call tumour is found in any case.
            min(threshold, SMALLEST_PROBABILITY),
        ).scores(),
    }
    return metrics, rows


def class_map_report(cohort: MapCohort, method: str = "Maps") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pixel scores of maps of several classes.

    Pixels are those of the maps, and each is of the class that is likeliest there (of equal ones the first; class 0 where no
    tile was mapped). They are scored twice: in tissue only, and with the background, which is of class 0 whatever the map says
    of it; either way as pooled pixels and as means of slides. Tumour is all that is not class 0; its AUC against class 0 is that
    of 1 - P(class 0).

    Args:
        cohort: of the maps, with their class names.
        method: what the table calls the maps.

    Returns:
        metrics of the cohort, and a row per slide.

    Raises:
        ValueError: for fewer than three classes, and as `MapCohort.counts`.

    Reference:
        Ciga and Martel, section 3.2, see `class_scores`.
    """
    names = list(cohort.folder.class_names or ())
    if len(names) < 3:
        raise ValueError(f"need three classes or more, got {names}: maps of tumour have their own report")
    slides, rows = [], []
    for record, counts in cohort.counts():
        slides.append(counts)
        rows.append(_class_row(record, counts, names))
    pooled = MapCounts.pooled(slides)
    true = pooled.confusions["all"].sum(1)
    metrics: dict[str, Any] = {
        **_left_out(cohort),
        "class_names": names,
        "classes_without_truth": [name for index, name in enumerate(names) if not true[index]],
    }
    for part, (kind, matrix) in CLASS_KINDS.items():
        metrics[kind] = compared_class_scores(method, pooled.confusions[part], names)
        metrics[matrix] = pooled.confusions[part].tolist()
        of_slides = torch.stack([counts.confusions[part] for counts in slides])
        metrics[f"{kind}_of_slides"] = {method: mean_class_scores(of_slides, names)}
    in_tissue = torch.stack([counts.confusions["tissue"] for counts in slides])
    metrics["classes"] = {name: scores_of_class(in_tissue, index) for index, name in enumerate(names)}
    return metrics | {f"pixels_{part}": pooled.scores(part) for part in PARTS}, rows


def _left_out(cohort: MapCohort) -> dict[str, int]:
    return {
        "num_slides": len(cohort.records),
        "num_missing": cohort.num_missing,
        "num_without_truth": cohort.num_without_truth,
    }


def _tumour_row(record: Record, counts: MapCounts, least: int) -> dict[str, Any]:
    """The scores of one slide; the slide score is the share of its tissue that is tumour on the map."""
    decided = counts.decided("tissue", least)
    num_pixels = int(decided.sum())
    return {
        "slide": slide_name(record),
        "label": record["label"],
        "score": float(decided[:2].sum()) / num_pixels if num_pixels else 0.0,
        "tissue_auc": counts.auc("tissue"),
        "auc": counts.auc("all"),
        **dict(zip(COUNTS, decided.tolist(), strict=True)),
        **pooled_scores(decided),
    }


def _slide_auc(rows: Sequence[dict[str, Any]]) -> float | None:
    labelled = [row for row in rows if row["label"] is not None]
    if not labelled:
        return None
    labels = torch.tensor([int(row["label"] > 0) for row in labelled])
    return number(roc_auc(torch.tensor([row["score"] for row in labelled]), labels))


def _class_row(record: Record, counts: MapCounts, names: Sequence[str]) -> dict[str, Any]:
    """The scores of one slide, in its tissue unless the name says otherwise."""
    confusion = counts.confusions["tissue"]
    scores = class_scores(confusion)
    return {
        "slide": slide_name(record),
        "label": record["label"],
        "num_pixels": int(confusion.sum()),
        "tissue_auc": counts.auc("tissue"),
        "auc": counts.auc("all"),
        **confusion_row(confusion, names),
        **{f"f1_{name}": number(scores[f"f1_{index}"]) for index, name in enumerate(names)},
        "confusion": confusion.tolist(),
    }
