"""Scores of many images, with intervals by resampling patients and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shared.metrics import Reliability, reliability_of_map_histograms

from .scoring import Scores

Array = NDArray[np.float64]

NUM_DRAWS = 2000
LEVEL = 0.95
ECE_BINS = 15


@dataclass(frozen=True)
class Interval:
    """A score: its mean over seeds, and the interval in which resampling leaves it; NaN where there is none."""

    mean: float
    low: float
    high: float


def intervals(scores: Sequence[Scores], num_draws: int = NUM_DRAWS, seed: int = 0) -> dict[str, Interval]:
    """Every score of a method, mean over seeds, with its 95 % interval over patients and seeds.

    A draw takes as many cases as there are, with replacement - a patient with all images or not at all - and as many of the
    trainings, with replacement too; its score is the mean over these trainings of the score on these cases. The interval is from
    the 2.5th to the 97.5th percentile of the draws. Draws in which a score is 0/0 - no tumour, say - are left out of it. With a
    single case there is no interval. The same `seed` draws the same cases for every method.

    Args:
        scores: of each training's maps of the same test images, in the same order.
        num_draws: draws.
        seed: of the draws.

    Returns:
        intervals by the names of `score_names`.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3 (percentile intervals), with patients as the
        sampling units.
    """
    names, index = np.unique(scores[0].cases, return_inverse=True)
    rng = np.random.default_rng(seed)
    num_cases = len(names)
    weights = rng.multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=num_draws).astype(np.float64)
    trainings = rng.integers(len(scores), size=(num_draws, len(scores)))
    found: dict[str, Interval] = {}
    whole = [_scores(_sums(one, index, num_cases).total(np.ones((1, num_cases)))) for one in scores]
    drawn = [_scores(_sums(one, index, num_cases).total(weights)) for one in scores]
    for name in whole[0]:
        mean = _nanmean(np.array([one[name][0] for one in whole]), axis=0)
        # (draws, trainings): the score of each training that a draw takes, on the cases that it takes.
        of_draws = np.stack([one[name] for one in drawn], axis=1)
        means = _nanmean(np.take_along_axis(of_draws, trainings, axis=1), axis=1)
        means = means[~np.isnan(means)]
        tail = 100 * (1 - LEVEL) / 2
        low, high = np.percentile(means, [tail, 100 - tail]) if num_cases > 1 and len(means) else (np.nan, np.nan)
        found[name] = Interval(float(mean), float(low), float(high))
    return found


def pooled_reliability(scores: Sequence[Scores]) -> Reliability:
    """The reliability curve of tumour probability over all pixels in tissue, of all trainings together."""
    histograms = np.sum([one.tissue.sum(axis=0) for one in scores], axis=0)
    return reliability_of_map_histograms(torch.from_numpy(histograms), ECE_BINS)


def score_names(num_classes: int) -> dict[str, str]:
    """Names of the scores and their titles.

    >>> list(score_names(2))[:3]
    ['sensitivity', 'specificity', 'accuracy']
    """
    names = {
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "accuracy": "Accuracy",
        "f1": "F1",
        "iou": "IoU",
        "region_f": "Region F",
        "ods": "ODS",
        "auc_tissue": "AUC, tissue",
        "auc_all": "AUC with background",
        "ece": "ECE (0 is best)",
    }
    return names | ({"bach_score": "BACH score"} if num_classes > 2 else {})


@dataclass(frozen=True)
class _Totals:
    """Weighted sums over cases, a row a draw."""

    counts: Array  # (B, 4)
    tissue: Array  # (B, 2, 256)
    everywhere: Array  # (B, 2, 256)
    boundary: Array  # (B, 99, 4)
    confusion: Array  # (B, C, C)
    region_f: Array  # (B, 2): sum, number of images


@dataclass(frozen=True)
class _Sums:
    """Sums of each case."""

    of_case: dict[str, Array]

    def total(self, weights: Array) -> _Totals:
        """How often each case counts, ``(B, num_cases)`` -> sums."""
        return _Totals(
            **{name: (weights @ sums.reshape(len(sums), -1)).reshape(-1, *sums.shape[1:]) for name, sums in self.of_case.items()}
        )


def _sums(scores: Scores, index: NDArray[np.int64], num_cases: int) -> _Sums:
    values = {name: getattr(scores, name) for name in ("counts", "tissue", "everywhere", "boundary", "confusion")}
    values["region_f"] = np.stack([scores.region_f, np.ones_like(scores.region_f)], axis=1)
    sums = {}
    for name, of_images in values.items():
        sums[name] = np.zeros((num_cases, *of_images.shape[1:]))
        np.add.at(sums[name], index, of_images)
    return _Sums(sums)


def _scores(totals: _Totals) -> dict[str, Array]:
    """Every score ``(B,)`` of pooled pixels and boundaries; region F is a mean over images. NaN where it is 0/0."""
    tp, fp, fn, tn = np.moveaxis(totals.counts, -1, 0)
    sums, numbers = totals.region_f.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "accuracy": (tp + tn) / (tp + fp + fn + tn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "iou": tp / (tp + fp + fn),
            "region_f": sums / numbers,
            "ods": _ods(totals.boundary),
            "auc_tissue": _auc(totals.tissue),
            "auc_all": _auc(totals.everywhere),
            "ece": _ece(totals.tissue),
        }
        if totals.confusion.shape[-1] > 2:
            found["bach_score"] = _bach_score(totals.confusion)
    return found


def _auc(histograms: Array) -> Array:
    """As `shared.metrics.ranking.roc_auc_of_histograms`, of many: ``(B, 2, 256)`` -> ``(B,)``."""
    negatives, positives = histograms[:, 0], histograms[:, 1]
    below = negatives.cumsum(axis=1) - negatives
    return (positives * (below + negatives / 2)).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))


def _ece(histograms: Array) -> Array:
    """As `shared.metrics.calibration_error.reliability_of_map_histograms`, of many: ``(B, 2, 256)`` -> ``(B,)``."""
    probability = np.arange(256) / 255
    bins = np.minimum(np.floor(probability * ECE_BINS), ECE_BINS - 1)
    counts = histograms.sum(axis=1)
    gaps = (counts * probability - histograms[:, 1]) @ (bins[:, None] == np.arange(ECE_BINS)).astype(np.float64)
    return np.abs(gaps).sum(axis=1) / counts.sum(axis=1)


def _ods(boundary: Array) -> Array:
    """As `shared.metrics.ods_of_counts`, of many: ``(B, thresholds, 4)`` -> ``(B,)``; NaN without a true boundary."""
    matched_predicted, predicted, matched_true, true = np.moveaxis(boundary, -1, 0)
    precision, recall = matched_predicted / np.maximum(predicted, 1), matched_true / np.maximum(true, 1)
    f = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    return np.where(true[:, 0] > 0, f.max(axis=1), np.nan)


def _bach_score(confusion: Array) -> Array:
    """As `shared.metrics.classes.bach_score_of_confusion`, of many: ``(B, C, C)`` -> ``(B,)``."""
    classes = np.arange(confusion.shape[-1])
    true, predicted = classes[:, None], classes[None, :]
    worst = np.broadcast_to(np.maximum(true, np.abs(true - classes[-1])), confusion.shape[1:]).copy()
    worst[0, 0] = 0
    return 1 - (confusion * np.abs(true - predicted)).sum(axis=(1, 2)) / (confusion * worst).sum(axis=(1, 2))


def _nanmean(values: Array, axis: int) -> Array:
    """Mean over what is no number left out; NaN of nothing, without a warning."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=axis) / known.sum(axis=axis))
