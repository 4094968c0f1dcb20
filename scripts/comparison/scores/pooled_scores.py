"""Scores of pooled pixels and boundaries, of many draws of cases at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scoring import Scores

Array = NDArray[np.float64]

ECE_BINS = 15
# At the end of the name of a score that is a mean over cases.
OF_CASES = "_of_cases"


@dataclass(frozen=True)
class Totals:
    """Weighted sums over cases, one row per draw."""

    counts: Array  # (B, 4)
    tissue: Array  # (B, 2, 256)
    everywhere: Array  # (B, 2, 256)
    boundary: Array  # (B, 99, 4)
    confusion: Array  # (B, C, C)
    region_f: Array  # (B, 2): sum, number of images


@dataclass(frozen=True)
class Sums:
    """Sums of each case."""

    of_case: dict[str, Array]

    def total(self, weights: Array) -> Totals:
        """How often each case counts, ``(B, num_cases)`` -> sums."""
        return Totals(
            **{name: (weights @ sums.reshape(len(sums), -1)).reshape(-1, *sums.shape[1:]) for name, sums in self.of_case.items()}
        )


def sums_of_cases(scores: Scores, index: NDArray[np.int64], num_cases: int) -> Sums:
    values = {name: getattr(scores, name) for name in ("counts", "tissue", "everywhere", "boundary", "confusion")}
    values["region_f"] = np.stack([scores.region_f, np.ones_like(scores.region_f)], axis=1)
    sums = {}
    for name, of_images in values.items():
        sums[name] = np.zeros((num_cases, *of_images.shape[1:]))
        np.add.at(sums[name], index, of_images)
    return Sums(sums)


def pooled_scores(totals: Totals, classes: NDArray[np.bool_] | None = None) -> dict[str, Array]:
    """Every score ``(B,)`` of pooled pixels and boundaries; region F is a mean over images. NaN where it is 0/0.

    Args:
        totals: of B draws.
        classes: which classes the test data have, ``(C,)``. Macro F1 and mean IoU are then means over these, and not known in a
            draw without one of them, like IoU and F1 without tumour: as soon as a single pixel is called so they would be 0, and
            say how often a draw has none. None: of each case by itself, over the classes that it has or is said to have, see
            `shared.metrics.class_scores`.
    """
    sums, numbers = totals.region_f.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = scores_of_counts(totals.counts) | {
            "region_f": sums / numbers,
            "ods": _ods(totals.boundary),
            "auc_tissue": _auc(totals.tissue),
            "auc_all": _auc(totals.everywhere),
            "ece": _ece(totals.tissue),
        }
        if totals.confusion.shape[-1] > 2:
            found |= _class_scores(totals.confusion, classes)
    if classes is not None:
        found |= {name: np.where(np.isnan(found["sensitivity"]), np.nan, found[name]) for name in ("f1", "iou")}
    return found


def scores_of_counts(counts: Array) -> dict[str, Array]:
    """The scores ``(B,)`` of tp, fp, fn, tn ``(B, 4)``; NaN where one is 0/0."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "accuracy": (tp + tn) / (tp + fp + fn + tn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "iou": tp / (tp + fp + fn),
        }


def means_of_cases(each: Mapping[str, Array], weights: Array) -> dict[str, Array]:
    """Scores that are means over cases and not of pooled pixels, ``(B,)``: IoU over the cases with tumour, AUCs over those with
    tumour and without in the pixels that count; of several classes macro F1 and BACH's score over all.

    Args:
        each: score -> that of each case alone, ``(num_cases,)``.
        weights: how often each case counts, ``(B, num_cases)``.
    """
    has_tumour = ~np.isnan(each["sensitivity"])
    parts = {"iou": np.where(has_tumour, each["iou"], np.nan)}
    # Of a case with one kind of pixels the AUC is 0/0.
    parts |= {name: each[name] for name in ("auc_tissue", "auc_all", "macro_f1", "bach_score") if name in each}
    found = {}
    for name, values in parts.items():
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            found[f"{name}{OF_CASES}"] = (weights[:, known] @ values[known]) / weights[:, known].sum(axis=1)
    return found


def rests_on(each: Mapping[str, Array], sums: Sums) -> dict[str, NDArray[np.bool_]]:
    """Which cases each score rests on, ``(num_cases,)``: those on which it is known, as a sensitivity is where there is tumour.

    Fewer are those of pooled scores that some cases hardly move. IoU and F1 rest on the cases with tumour: a single false alarm
    makes the IoU of a normal case known, and tells next to nothing of others. Likewise the F1 of a class rests on the cases
    with that class, mean IoU and macro F1 on those with any class but the first. A pooled AUC compares pixels of different cases,
    and is known on no single one where each has one kind: it rests on the cases with tumour or on those with normal pixels,
    whichever are fewer.

    Args:
        each: score -> that of each case alone, ``(num_cases,)``.
        sums: of the cases.
    """
    found = {name: ~np.isnan(values) for name, values in each.items()}
    of_cases = {f"{name}{OF_CASES}": found[name] for name in ("auc_tissue", "auc_all", "macro_f1", "bach_score") if name in found}
    of_cases[f"iou{OF_CASES}"] = found["sensitivity"]
    found |= {name: found["sensitivity"] for name in ("iou", "f1", "macro_f1", "mean_iou") if name in found}
    has_class = sums.of_case["confusion"].sum(axis=2) > 0
    found |= {f"f1_{index}": has_class[:, index] for index in range(has_class.shape[1]) if f"f1_{index}" in found}
    for name, part in (("auc_tissue", "tissue"), ("auc_all", "everywhere")):
        normal, tumour = (sums.of_case[part].sum(axis=2) > 0).T
        found[name] = min(normal, tumour, key=np.sum)
    return found | of_cases


def _auc(histograms: Array) -> Array:
    """Like `shared.metrics.ranking.roc_auc_of_histograms`, for many: ``(B, 2, 256)`` -> ``(B,)``."""
    negatives, positives = histograms[:, 0], histograms[:, 1]
    below = negatives.cumsum(axis=1) - negatives
    return (positives * (below + negatives / 2)).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))


def _ece(histograms: Array) -> Array:
    """Like `shared.metrics.calibration_error.reliability_of_map_histograms`, for many: ``(B, 2, 256)`` -> ``(B,)``."""
    probability = np.arange(256) / 255
    bins = np.minimum(np.floor(probability * ECE_BINS), ECE_BINS - 1)
    counts = histograms.sum(axis=1)
    gaps = (counts * probability - histograms[:, 1]) @ (bins[:, None] == np.arange(ECE_BINS)).astype(np.float64)
    return np.abs(gaps).sum(axis=1) / counts.sum(axis=1)


def _ods(boundary: Array) -> Array:
    """Like `shared.metrics.ods_of_counts`, for many: ``(B, thresholds, 4)`` -> ``(B,)``; NaN without a true boundary."""
    matched_predicted, predicted, matched_true, true = np.moveaxis(boundary, -1, 0)
    precision, recall = matched_predicted / np.maximum(predicted, 1), matched_true / np.maximum(true, 1)
    f = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    return np.where(true[:, 0] > 0, f.max(axis=1), np.nan)


def _class_scores(confusion: Array, classes: NDArray[np.bool_] | None = None) -> dict[str, Array]:
    """Like `shared.metrics.classes.class_scores`, for many: ``(B, C, C)`` -> ``(B,)`` each; `classes`: see `pooled_scores`."""
    right, true, predicted = confusion.diagonal(axis1=1, axis2=2), confusion.sum(axis=2), confusion.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1, iou = 2 * right / (true + predicted), right / (true + predicted - right)
        if classes is not None:
            f1, iou = (np.where(true > 0, score, np.nan) for score in (f1, iou))
        found = {
            "class_accuracy": right.sum(axis=1) / true.sum(axis=1),
            "macro_f1": nanmean(f1, axis=1) if classes is None else f1[:, classes].mean(axis=1),
            "mean_iou": nanmean(iou, axis=1) if classes is None else iou[:, classes].mean(axis=1),
            "bach_score": _bach_score(confusion),
        }
    return found | {f"f1_{index}": f1[:, index] for index in range(f1.shape[1])}


def _bach_score(confusion: Array) -> Array:
    """Like `shared.metrics.classes.bach_score_of_confusion`, for many: ``(B, C, C)`` -> ``(B,)``."""
    classes = np.arange(confusion.shape[-1])
    true, predicted = classes[:, None], classes[None, :]
    worst = np.broadcast_to(np.maximum(true, np.abs(true - classes[-1])), confusion.shape[1:]).copy()
    worst[0, 0] = 0
    off, most = (confusion * np.abs(true - predicted)).sum(axis=(1, 2)), (confusion * worst).sum(axis=(1, 2))
    # Where all is background and is said to be, there is nothing to be off by.
    return np.where((most == 0) & (confusion.sum(axis=(1, 2)) > 0), 1.0, 1 - off / most)


def nanmean(values: Array, axis: int) -> Array:
    """Mean over what is no number left out; NaN of nothing, without a warning."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=axis) / known.sum(axis=axis))
